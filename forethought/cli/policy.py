"""`forethought policy`."""

from __future__ import annotations

from typing import Annotated

import typer

policy_app = typer.Typer(
    no_args_is_help=True, help="Show or check a policy. Example: `forethought policy show default`"
)


@policy_app.command("show")
def policy_show(
    name: Annotated[str, typer.Argument(help="A shipped policy, or a YAML file.")] = "default",
    yaml: Annotated[bool, typer.Option("--yaml", help="Print the file itself, to be copied and changed.")] = False,
) -> None:
    """Print a policy. Example: `forethought policy show default --yaml > ours.yaml`"""
    from forethought.policy import load_policy, text_of

    policy = load_policy(name)
    if yaml:
        print(text_of(name).decode("utf-8"), end="")
        return
    print(
        f"{policy.name}, version {policy.version}, {len(policy.categories)} categories, hash {policy.hash}\n{policy.intro}\n"
    )
    for c in policy.categories:
        print(f"{c.id} ({c.name}): {c.respond}\n  {c.definition}")
        for title, lines in (("not allowed", c.not_allowed), ("allowed", c.allowed)):
            for line in lines:
                print(f"  {title}: {line}")


@policy_app.command("check")
def policy_check(name: Annotated[str, typer.Argument(help="A shipped policy, or a YAML file.")] = "default") -> None:
    """Check a policy and warn of what is missing. Example: `forethought policy check ours.yaml`"""
    from forethought.policy import load_policy, warnings

    policy = load_policy(name)
    for line in warnings(policy):
        print(f"warning: {line}")
    print(f"'{policy.name}' is valid: {len(policy.categories)} categories.")
