"""What making a primary data set did: recordings read, repaired, skipped and failed, and windows that were left out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cerebro.data.readers.base import Finding
from cerebro.data.report import N_FAILURES_SHOWN, RuleCount, count_rules, rule_lines


@dataclass(frozen=True)
class PrimaryReport:
    """Counts; equal inputs give an equal report.

    Parameters
    ----------
    file : str
        The data set, as a path below the output folder.
    channels : tuple of str
        In upper case.
    read : int
        Recordings in the data set.
    repaired, skipped, failed : int
        Recordings, participants or files that a rule repaired, left out, or that could not be used.
    rules : tuple of RuleCount
        Sorted by severity and rule.
    participants : dict of str to int
        People in the data set by the name of their label.
    recordings : dict of str to int
        Recordings in the data set by the name of their label.
    windows : int
        Windows in the data set.
    windows_left_out : int
        Windows of these recordings that an artefact limit left out.
    hours : float
        Duration of the windows.
    failed_share : float
        Failed recordings over those read and failed.
    failures : dict of str to str
        Every recording that could not be used -> why.
    """

    file: str
    channels: tuple[str, ...]
    read: int
    repaired: int
    skipped: int
    failed: int
    rules: tuple[RuleCount, ...]
    participants: dict[str, int]
    recordings: dict[str, int]
    windows: int
    windows_left_out: int
    hours: float
    failed_share: float
    failures: dict[str, str] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)

    def table(self) -> str:
        """Text for the terminal."""
        n_people = sum(self.participants.values())
        cut = self.windows + self.windows_left_out
        lines = [
            f"read      {self.read:>8,}   {self.hours:,.2f} h of {n_people:,} participants, {len(self.channels)} "
            f"channels ({', '.join(self.channels[:6])}{', ...' if len(self.channels) > 6 else ''})",
            f"repaired  {self.repaired:>8,}",
            f"skipped   {self.skipped:>8,}",
            f"failed    {self.failed:>8,}   {self.failed_share:.1%} of the recordings that were opened",
            f"windows   {self.windows:>8,}   {self.windows_left_out:,} of {cut:,} left out by artefact limits",
        ]
        lines += [
            f"  label {name:<31} {n:>8,} participants, {self.recordings[name]:,} recordings"
            for name, n in self.participants.items()
        ]
        lines += rule_lines(self.rules)
        lines += [f"failed    {key}: {reason}" for key, reason in list(self.failures.items())[:N_FAILURES_SHOWN]]
        if len(self.failures) > N_FAILURES_SHOWN:
            lines.append(f"failed    {len(self.failures) - N_FAILURES_SHOWN:,} more; the report's JSON names them all")
        return "\n".join(lines)


def make_report(
    file: str,
    channels: Sequence[str],
    findings: Sequence[Finding],
    people: Mapping[str, int],
    recordings: Mapping[str, int],
    windows: int,
    n_cut: int,
    window_s: float,
) -> PrimaryReport:
    """Count findings; ``people`` and ``recordings`` are by label, ``n_cut`` windows before some were left out."""
    concerned = {
        severity: {one.where for one in findings if one.severity == severity}
        for severity in ("repaired", "skipped", "failed")
    }
    n_read = sum(recordings.values())
    n_failed = len(concerned["failed"])
    failures: dict[str, str] = {}
    for one in sorted(findings, key=lambda one: (one.where, one.detail)):
        if one.severity == "failed":
            failures[one.where] = f"{failures[one.where]}; {one.detail}" if one.where in failures else one.detail
    return PrimaryReport(
        file=file,
        channels=tuple(channels),
        read=n_read,
        repaired=len(concerned["repaired"]),
        skipped=len(concerned["skipped"]),
        failed=n_failed,
        rules=count_rules(findings),
        participants=dict(people),
        recordings=dict(recordings),
        windows=windows,
        windows_left_out=n_cut - windows,
        hours=windows * window_s / 3600,
        failed_share=n_failed / max(n_failed + n_read, 1),
        failures=failures,
    )
