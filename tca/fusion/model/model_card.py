"""The page that goes with a saved model: what it is, needs and does, and how well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from tca.fusion.model.registry import parameters

if TYPE_CHECKING:
    from tca.fusion.model.fusion_model import FusionModel

TEMPLATE = """\
---
{{ card_data }}
---

# {{ variant }}: {{ classes | length }} classes of actions in short videos

A fusion model of `tca`. It decodes no video: it reads cached features of frozen networks, so use it
on stores that `tca extract` made with the same networks and settings (below).

| | |
|---|---|
| variant | `{{ variant }}` |
| trained parameters | {{ "{:,}".format(parameters) }} |
{%- for name, shape in inputs.items() %}
| reads {{ name }} features | (B, {{ shape | join(", ") }}) |
{%- endfor %}
| gives | logits (B, {{ classes | length }}) |
| precision in training | {{ precision }} |

## Use

```python
from tca.cache.store import Store
from tca.fusion.model.fusion_model import FusionModel

model = FusionModel.from_pretrained("{{ repo_id | default("FOLDER OR OWNER/NAME", true) }}")
model.require_store(Store.open("cache/validation.zarr"), "this model")  # the same features?
scores = model(semantic, motion)  # None for a stream that it does not read
names = [model.classes[best] for best in scores.argmax(-1)]
```

## Scores
{% if scores %}
| split | videos | top-1 | top-5 |
|---|---|---|---|
{%- for one in scores %}
| {{ one.split }} | {{ one.videos }} | {{ "%.3f" | format(one.top1) }} | \
{{ "-" if one.top5 is none else "%.3f" | format(one.top5) }} |
{%- endfor %}
{% else %}
`tca evaluate` had not scored it when it was saved.
{% endif %}
## Features it needs

A store's identity must be the same, apart from its views and from streams that are not read.

```yaml
{{ identity }}```

## Model

```yaml
{{ model }}```

## Training

```yaml
{{ record }}```

## Classes

```text
{%- for name in classes %}
{{ loop.index0 }} {{ name }}
{%- endfor %}
```
"""


def card_fields(model: FusionModel) -> dict[str, Any]:
    """Return what `TEMPLATE` is filled with, the name of a repository apart."""
    saved = model.saved
    return {
        "variant": saved.model.variant,
        "parameters": parameters(model),
        "inputs": model.input_shapes,
        "precision": saved.precision,
        "classes": [" ".join(name.split()) for name in saved.classes],
        "scores": saved.scores or [],
        "identity": _yaml(saved.identity),
        "model": _yaml(saved.model.model_dump(mode="json")),
        "record": _yaml(saved.record or {"known": "nothing"}),
    }


def _yaml(tree: dict[str, Any]) -> str:
    """Return YAML, sorted as `config.json` is: a model saved again has the same card."""
    return yaml.safe_dump(tree, allow_unicode=True)
