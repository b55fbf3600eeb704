"""`deploy` and `undeploy` as lines: an object a line on stdout, what is waited for on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubectl_genainet.render.text import tell

if TYPE_CHECKING:
    from kubectl_genainet.kube.agents.deployment import AppliedObject
    from kubectl_genainet.kube.agents.progress import Rollout


class StepLines:
    """The View of a deploy or an undeploy. `steps` counts the objects."""

    def __init__(self, *, dry_run: bool = False) -> None:
        self.steps = 0
        self._suffix = " (dry run)" if dry_run else ""
        self._said: set[str] = set()

    def step(self, step: AppliedObject) -> None:
        if step.outcome == "waiting":
            tell(f"{step.object}: {step.note}; waiting")
            return
        self.steps += 1
        print(f"{step.object} {step.outcome}{self._suffix}", flush=True)
        if step.note:
            tell(f"warning: {step.object}: {step.note}")

    def rollout(self, state: Rollout) -> None:
        """Each number of ready agents and each problem is told once."""
        if state.desired:
            self._once(f"{state.ready} of {state.desired} agents ready")
        for problem in state.problems:
            if self._once(f"  {problem.node or 'all nodes'}: {problem.what}", key=problem.what) and problem.hint:
                tell(f"    {problem.hint}")

    def _once(self, text: str, key: str = "") -> bool:
        if (key or text) in self._said:
            return False
        self._said.add(key or text)
        tell(text)
        return True
