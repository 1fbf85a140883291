"""Attacks on privacy, run on ourselves: they can refute a certificate and never prove one."""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_canaries": ["CanarySet", "audit_estimator", "draw_inclusion", "insert_canaries"],
        "_lira": ["lira_scores"],
        "_mechanism": [
            "assert_dp_lower_bound",
            "audit_mechanism",
            "dp_lower_bound",
            "multi_run_epsilon_lower_bound",
        ],
        "_membership": ["evaluate_attack", "loss_scores", "membership_inference"],
        "_metrics": ["attack_advantage", "attack_auc", "audited_epsilon"],
        "_one_run": ["one_run_audit", "one_run_epsilon_lower_bound", "one_run_p_value"],
        "_one_run_curve": ["one_run_curve_p_value", "one_run_gdp_lower_bound"],
        "_result": ["AttackResult"],
        "_white_box": ["audit_engine", "audit_engine_step"],
    },
)
