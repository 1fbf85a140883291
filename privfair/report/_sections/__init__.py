"""The standard sections; each registers itself, as those of other packages do."""

from privfair.core.registry import register
from privfair.report._context import Section
from privfair.report._sections import (
    attacks,
    data,
    dependence,
    frontier,
    groups,
    intersections,
    ldp,
    methods,
    mitigation,
    performance,
    pid,
    privacy,
    privacy_fairness,
    sep,
    summary,
)

__all__ = ["STANDARD"]

STANDARD = (
    Section("summary", "section.summary", summary.build, order=0, last=True),
    Section("data", "section.data", data.build, requires=("groups",), order=100),
    Section(
        "performance", "section.performance", performance.build, requires=("labels",), order=200
    ),
    Section("groups", "section.groups", groups.build, requires=("groups",), order=300),
    Section(
        "intersections", "section.intersections", intersections.build, requires=("groups",),
        order=400,
    ),
    Section("pid", "section.pid", pid.build, requires=("groups",), order=600),
    Section(
        "frontier", "section.frontier", frontier.build, requires=("groups", "labels"), order=700
    ),
    Section(
        "mitigation", "section.mitigation", mitigation.build, requires=("groups",), order=800,
        when=mitigation.given,
    ),
    Section(
        "dependence", "section.dependence", dependence.build, requires=("groups",), order=900
    ),
    Section(
        "sep", "section.sep", sep.build, requires=("groups",), order=950, when=sep.given
    ),
    Section("privacy", "section.privacy", privacy.build, order=1200),
    Section("attacks", "section.attacks", attacks.build, order=1300, when=attacks.given),
    Section(
        "privacy_fairness", "section.privacy_fairness", privacy_fairness.build,
        requires=("groups",), order=1400, when=privacy_fairness.given,
    ),
    Section("ldp", "section.ldp", ldp.build, order=1500, when=ldp.given),
    Section("methods", "section.methods", methods.build, order=1600, last=True),
)  # fmt: skip
for _section in STANDARD:
    register("report_sections", _section.id)(_section)
