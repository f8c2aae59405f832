"""`cpu-pipeline bench`: measure what the documentation claims, on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cpu_pipeline.cli.options import Json

if TYPE_CHECKING:
    from cpu_pipeline.core.artifact import Facts

app = typer.Typer(help="Measure on this machine what the documentation claims.", no_args_is_help=True)


@app.callback()
def _bench() -> None:
    pass


@app.command()
def padding(
    layers: Annotated[int, typer.Option(min=1, help="Layers of the random RoBERTa.")] = 12,
    hidden: Annotated[int, typer.Option(min=2, help="Its hidden size.")] = 768,
    heads: Annotated[int, typer.Option(min=2, help="Its attention heads.")] = 12,
    batch: Annotated[int, typer.Option(min=1, help="Sequences in a batch.")] = 8,
    length: Annotated[int, typer.Option(min=3, help="Tokens that each is padded to.")] = 256,
    rounds: Annotated[int, typer.Option(min=1, help="How often the ways take turns.")] = 5,
    shares: Annotated[
        str, typer.Option(metavar="PERCENT,...", help="Shares of real tokens, in percent.")
    ] = "100,70,50,40,30,15",
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0 takes one for each core.")] = 0,
    bf16: Annotated[bool, typer.Option("--bf16", help="Measure packed in bfloat16 too.")] = False,
    as_json: Json = False,
) -> None:
    """Time transformers' sdpa, torch's nested fast path and packed tokens over the share of real tokens."""
    import sys

    from cpu_pipeline.bench.padding import PaddingBenchmark
    from cpu_pipeline.cli.output import as_json as print_json

    bench = PaddingBenchmark(layers, hidden, heads, batch, length, rounds, _percents(shares), threads, bf16)
    found = bench.run(lambda line: print(line, file=sys.stderr, flush=True))
    if as_json:
        print_json(found)
    else:
        _show(found)


def _percents(text: str) -> tuple[int, ...]:
    from cpu_pipeline.core.errors import RecipeError

    shares = text.replace(",", " ").split()
    if not shares or not all(share.isascii() and share.isdigit() and 0 < int(share) <= 100 for share in shares):
        raise RecipeError(f"--shares {text}: write whole percents from 1 to 100, such as 100,40,15")
    return tuple(dict.fromkeys(map(int, shares)))


def _show(found: Facts) -> None:
    from cpu_pipeline.cli.output import columns

    machine, model = found["machine"], found["model"]
    columns(
        [
            ("cpu", f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB"),
            ("isa", " ".join(machine["isa"])),
            ("threads", str(found["threads"])),
            ("load", f"{found['load'][0]:.2f} before, {found['load'][1]:.2f} after (average of a minute)"),
            ("torch", found["torch"]),
            ("model", f"RoBERTa, {model['layers']} layers, size {model['hidden']}, {model['heads']} heads, random"),
            ("batch", f"{found['batch']} sequences padded to {found['length']} tokens, {found['rounds']} rounds"),
        ]
    )
    print("\nmedian seconds of a batch, how many times faster than sdpa, and the largest difference from its answers\n")
    names = list(found["shares"][0]["ways"])
    others = [name for name in names if name != "sdpa"]
    rows = [("real tokens", "sdpa", *(cell for name in others for cell in (name, "times", "difference")))]
    for share in found["shares"]:
        ways = share["ways"]
        cells = [
            cell
            for name in others
            for cell in (
                f"{ways[name]['median']:.3f}",
                f"{ways[name]['times_faster']:.2f}",
                f"{ways[name]['max_abs']:.1e}",
            )
        ]
        rows.append((f"{share['share']} %", f"{ways['sdpa']['median']:.3f}", *cells))
    columns(rows)
