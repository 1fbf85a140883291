"""Local differential privacy: every value is randomised before it leaves its owner's device.

Heavy imports happen on first use of a name.
"""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_aggregator": ["Aggregator"],
        "_binned": ["binned_mean"],
        "_chains": ["LGRR", "LOLOHA"],
        "_choose": ["Selection", "choose"],
        "_choose_longitudinal": ["choose_longitudinal"],
        "_client": ["Client", "randomize"],
        "_collection": ["Collection", "CollectionColumn"],
        "_dbitflip": ["DBitFlipPM"],
        "_direct": ["GRR", "SS"],
        "_estimate": ["FrequencyEstimate"],
        "_estimator": ["LDPFrequencyEstimator"],
        "_fakes": ["RSFD", "RSRFD"],
        "_files": ["FileSums", "ReportFile", "aggregate_files", "read_reports", "write_reports"],
        "_hashing": ["BLH", "OLH"],
        "_naive_bayes": ["LDPNaiveBayes"],
        "_longitudinal": ["LongitudinalProtocol"],
        "_longitudinal_client": ["LongitudinalClient"],
        "_memo": ["StoreReceipt"],
        "_population": ["LongitudinalPopulation", "average_rounds"],
        "_heavy": ["HeavyHitters", "PEM", "PrefixStep"],
        "_pairwise": ["PairwiseMarginals"],
        "_postprocess": ["EMResult", "full_likelihood", "postprocess"],
        "_protocol": ["FrequencyProtocol", "exact_epsilon"],
        "_reports": ["Reports", "concatenate"],
        "_row_aggregator": ["RowAggregator"],
        "_row_reports": ["RowReports", "randomize_rows"],
        "_rows": ["SMP", "SPL", "RowStrategy", "exact_row_epsilons"],
        "_research": ["SHE", "THE"],
        "_simulate": ["simulate_counts"],
        "_sketch": ["CMS", "HCMS"],
        "_shuffle": ["clone_probability", "shuffle_epsilon"],
        "_structured": ["HR", "PGR"],
        "_transformer": ["LDPTransformer"],
        "_unary_chains": ["LOSUE", "LOUE", "LSOUE", "LSUE"],
        "_unary": ["OUE", "SUE"],
    },
)
