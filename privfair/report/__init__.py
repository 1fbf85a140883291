"""The audit report: one result, rendered as an HTML page, JSON and terminal text.

The report states measured values, intervals, certified bounds and assumptions, and what was not
checked. It gives no verdict.
"""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_build": ["audit", "available_sections", "dataset_info"],
        "_card": ["to_model_card"],
        "_config": ["AuditConfig", "Predictions"],
        "_conditions": ["Condition", "parse_condition"],
        "_context": ["AuditContext", "Crossing", "Section"],
        "_diff": ["AuditDiff", "FindingChange", "diff"],
        "_environment": ["creation_date"],
        "_estimates": ["by_group", "estimates"],
        "_exports": ["to_csv_zip", "to_pdf", "to_sarif"],
        "_html": ["to_html"],
        "_inputs": ["positive_class"],
        "_local": ["LocalCollection", "attack_view", "ldp_report"],
        "_json": ["from_json", "json_schema", "to_json"],
        "_model": [
            "AuditResult",
            "Block",
            "Column",
            "DatasetInfo",
            "Figure",
            "Finding",
            "ModelInfo",
            "SectionResult",
            "Table",
            "Value",
        ],
        "_sweep": ["PrivacySweep", "SweepRun", "privacy_sweep"],
        "_text": ["print_diff", "print_text", "to_text"],
    },
)
