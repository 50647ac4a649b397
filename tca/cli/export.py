"""`tca export`: a run in, a model for the hub or for another runtime out."""

from __future__ import annotations

from pathlib import Path

import click

from tca.cli.options import json_option, project_options
from tca.errors import UsageError
from tca.project import load_project


@click.command("export")
@project_options
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    help="Run folder, or the folder of a saved model.  [default: the newest in runs/]",
)
@click.option(
    "--checkpoint", type=click.Choice(["best", "last"]), default="best", show_default=True
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["hub", "onnx", "torch"]),
    default="hub",
    show_default=True,
    help="hub: a folder with safetensors, configuration and card; torch: a program (.pt2).",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder or file to write.")
@click.option("--push", metavar="OWNER/NAME", help="Upload it to the model hub (hub alone).")
@click.option("--force", is_flag=True, help="Replace what is there.")
@json_option
def command(
    config: Path | None,
    overrides: tuple[str, ...],
    run: Path | None,
    checkpoint: str,
    form: str,
    out: Path | None,
    push: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write a trained model for others: as a folder, for the hub, for ONNX, for PyTorch.

    What is written is read again and scored beside the original; a copy that differs by more than
    rounding is refused.

    \b
    Examples:
      tca export --out gasm_cast
      tca export --run runs/gasm_cast-001 --push OWNER/NAME
      tca export --format onnx --out gasm_cast.onnx
      tca export --format torch --out gasm_cast.pt2 --checkpoint last
    """
    if out is None and push is None:
        raise UsageError("nothing to do: say where with --out, or upload with --push OWNER/NAME.")
    if push is not None and form != "hub":
        raise UsageError(f"--push uploads --format hub, not {form}; leave one of them out.")
    if run is None or config is not None or overrides:
        project, _ = load_project(config, overrides)
    from tca.console import note, print_json
    from tca.fusion.export import export
    from tca.fusion.model.fusion_model import FusionModel
    from tca.fusion.run_folder import newest_run

    run = run or newest_run(project.runs)
    model = FusionModel.open(run, checkpoint)
    document = {"run": str(run), "checkpoint": checkpoint}
    if out is not None:
        made = export(model, form, out, force=force)
        document |= made.to_json()
        if not as_json:
            click.echo(f"{form}, {made.bytes / 1e6:.1f} MB: {made.path}")
            note(
                f"largest difference from the original: {made.largest_difference:.2g} in scores "
                f"up to {made.largest_score:.3g}, over {made.videos} drawn videos."
            )
    if push is not None:
        document["pushed"] = str(model.push_to_hub(push))
        if not as_json:
            click.echo(f"uploaded: {document['pushed']}")
    if as_json:
        print_json(document)
