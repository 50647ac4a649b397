"""Networks of the true architectures, so small that the rest of extraction shows."""

TINY = {
    "semantic": {
        "sizes": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        }
    },
    "motion": {"blocks": (1, 1, 1, 1)},
}
