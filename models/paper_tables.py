"""Comparisons published in the papers, as systems of ours: a row's model, training rows, switches and the gain it had.

Gains are the papers' own, in percentage points over their base row; a table's first row is its base. EST gives relative
gains and MDL those of scenarios we do not have, so their rows carry none.
"""

from models.compare import System

FULL = ("model.est.attention=full", "model.est.csa=false")
NO_HHFI = ("model.hhsft.dref=false", "model.hhsft.dapga=false")

TABLES: dict[str, tuple[System, ...]] = {
    "uniscale-1": (
        System("DLRM-MLP, search-exposed", "dlrm_mlp", "search"),
        System("HHSFT, search-exposed", "hhsft", "search"),
        System("HHSFT, + unexposed", "hhsft", "unexposed"),
        System("HHSFT, + label attribution", "hhsft", "attributed"),
        System("HHSFT, + searchification (ES3)", "hhsft", "entire"),
    ),
    "uniscale-2": (
        System("DLRM-MLP", "dlrm_mlp", "search"),
        System("HHSFT", "hhsft", "search", paper={"click.auc": 0.82, "click.gauc": 0.62}),
        System("HHSFT + ES3", "hhsft", "entire", paper={"click.auc": 1.14, "click.gauc": 0.86}),
    ),
    "uniscale-3": (
        System("MLP", "hhsft", "search", ("model.hhsft.hfa_layers=0", "model.hhsft.gfa_layers=0", *NO_HHFI)),
        System(
            "Transformer",
            "hhsft",
            "search",
            ("model.hhsft.hfa_token_specific=false", "model.hhsft.gfa_layers=0", *NO_HHFI),
            {"click.auc": 0.17},
        ),
        System(
            "Heterogeneous Attention", "hhsft", "search", ("model.hhsft.gfa_layers=0", *NO_HHFI), {"click.auc": 0.41}
        ),
        System("HHFI", "hhsft", "search", NO_HHFI, {"click.auc": 0.80}),
    ),
    "uniscale-4": (
        System("search: HHFI", "hhsft", "search", NO_HHFI),
        System(
            "search: HHFI+DREF+DAPGA",
            "hhsft",
            "search",
            paper={"click.auc": 0.02, "click.gauc": 0.01, "click.hr@5": 0.02},
        ),
        System("ES3: HHFI", "hhsft", "entire", NO_HHFI, {"click.auc": -0.43, "click.gauc": -0.24, "click.hr@5": -4.76}),
        System(
            "ES3: HHFI+DREF",
            "hhsft",
            "entire",
            ("model.hhsft.dapga=false",),
            {"click.auc": 0.19, "click.gauc": 0.25, "click.hr@5": 0.39},
        ),
        System(
            "ES3: HHFI+DAPGA",
            "hhsft",
            "entire",
            ("model.hhsft.dref=false",),
            {"click.auc": 0.22, "click.gauc": 0.18, "click.hr@5": 0.17},
        ),
        System(
            "ES3: HHFI+DREF+DAPGA",
            "hhsft",
            "entire",
            paper={"click.auc": 0.32, "click.gauc": 0.26, "click.hr@5": 0.44},
        ),
    ),
    "est-1": (
        System("Full Attention", "est", "search", FULL),
        *(
            System(f"<{query}, {key}> masked", "est", "search", (*FULL, f"model.est.masked_blocks=[{query}{key}]"))
            for query, key in ("BB", "BN", "NN", "NB")
        ),
    ),
    "est-2": (
        System("ID-based Model", "est", "search", ("model.est.content=[]", "model.est.csa=false")),
        *(
            System(label, "est", "search", (f"model.est.content=[{content}]", "model.est.csa=false"))
            for label, content in (
                ("Side Information", "side_information"),
                ("Semantic ID", "semantic_id"),
                ("SimTier", "simtier"),
                ("SimTier + Side Information", "simtier, side_information"),
            )
        ),
    ),
    "est-4": (
        System("Full-Attention", "est", "search", FULL),
        System("LCA", "est", "search", ("model.est.csa=false",)),
        System("LCA + CSA", "est", "search"),
    ),
    "mdl-2": (
        System("MDL", "mdl", "search"),
        *(
            System(f"w/o {label}", "mdl", "search", (f"model.mdl.{switch}=false",))
            for label, switch in (
                ("task token", "task_token"),
                ("task-feature interaction", "task_feature_interaction"),
                ("scenario token", "scenario_token"),
                ("global scenario token", "global_scenario_token"),
                ("scenario-feature interaction", "scenario_feature_interaction"),
            )
        ),
    ),
}
