"""What a build did: read, repaired, skipped and failed recordings, by rule and with examples."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cerebro.data.readers.base import Finding

N_EXAMPLES = 3
N_FAILURES_SHOWN = 5


@dataclass(frozen=True)
class RuleCount:
    """How often a rule was met, and the first recordings it met."""

    rule: str
    severity: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class BuildReport:
    """Counts of a build; equal inputs give an equal report.

    Parameters
    ----------
    read : int
        Recordings in the store.
    repaired, skipped, failed : int
        Recordings, participants or files that a rule repaired, left out, or that could not be used.
    rules : tuple of RuleCount
        Sorted by severity and rule.
    tasks : dict of str to int
        Recordings in the store by task.
    n_participants : int
        People in the store.
    hours : float
        Duration of all recordings in the store.
    samples, clipped_samples : int
        Values in the store, and how many of them lay beyond its range.
    n_bytes : int
        Bytes of the samples.
    failed_share : float
        Failed recordings over those read and failed.
    verified : int
        Recordings in the store whose files agree with ``SHA256SUMS`` or a git-annex key.
    failures : dict of str to str
        Every recording, participant or file that could not be used -> why.
    """

    read: int
    repaired: int
    skipped: int
    failed: int
    rules: tuple[RuleCount, ...]
    tasks: dict[str, int]
    n_participants: int
    hours: float
    samples: int
    clipped_samples: int
    n_bytes: int
    failed_share: float
    verified: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)

    def table(self) -> str:
        """Text for the terminal."""
        lines = [
            f"read      {self.read:>8,}   {self.hours:,.2f} h of {self.n_participants:,} participants, "
            f"{self.n_bytes / 1e9:,.3f} GB",
            f"repaired  {self.repaired:>8,}",
            f"skipped   {self.skipped:>8,}",
            f"failed    {self.failed:>8,}   {self.failed_share:.1%} of the recordings that were opened",
            f"clipped   {self.clipped_samples:>8,}   of {self.samples:,} samples",
        ]
        if self.verified:
            lines.append(f"verified  {self.verified:>8,}   recordings agree with SHA256SUMS or their git-annex key")
        lines += [f"  task {task:<32} {count:>8,}" for task, count in self.tasks.items()]
        lines += rule_lines(self.rules)
        lines += [f"failed    {key}: {reason}" for key, reason in list(self.failures.items())[:N_FAILURES_SHOWN]]
        if len(self.failures) > N_FAILURES_SHOWN:
            lines.append(f"failed    {len(self.failures) - N_FAILURES_SHOWN:,} more; build_report.json names them all")
        return "\n".join(lines)


def count_rules(findings: Sequence[Finding]) -> tuple[RuleCount, ...]:
    """Findings by severity and rule, with the first few as examples."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in sorted(findings, key=lambda finding: (finding.where, finding.detail)):
        groups.setdefault((finding.severity, finding.rule), []).append(finding)
    return tuple(
        RuleCount(rule, severity, len(group), tuple(f"{one.where}: {one.detail}" for one in group[:N_EXAMPLES]))
        for (severity, rule), group in sorted(groups.items())
    )


def rule_lines(rules: Sequence[RuleCount]) -> list[str]:
    """Text lines: one per rule, its first example below it; what failed is listed by name elsewhere."""
    lines = []
    for entry in rules:
        lines.append(f"  {entry.severity:<9} {entry.rule:<32} {entry.count:>6,}")
        if entry.severity != "failed":
            lines += [f"            e.g. {example}" for example in entry.examples[:1]]
    return lines
