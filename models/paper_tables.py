"""Comparisons published in the papers, as systems of ours: a row's model, training rows, switches and the gain it had.

A table's first row is its base. Gains are the papers' own over that row, in percentage points of the measure; where a
paper gives absolute values they are subtracted. EST's Tables 1, 2 and 4 and OneTrans give relative gains, which are
kept as printed and are not comparable to ours to the last digit. EST groups GAUC by user, UniScale by user and query.
MDL's gains are of its single-column search and its UAUC and QAUC have no column here, so its Table 1 carries none.
OneTrans' UAUC is not ours either, so only its AUC stands.
"""

from models.compare import System

FULL = ("model.est.attention=full", "model.est.csa=false")
AGNOSTIC = "model.onetrans.fusion=timestamp_agnostic"
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
        System("DCNv2", "dcnv2", "search", paper={"click.auc": 0.08, "click.gauc": 0.01}),
        System("AutoInt", "autoint", "search", paper={"click.auc": 0.26, "click.gauc": 0.14}),
        System("HiFormer", "hiformer", "search", paper={"click.auc": 0.54, "click.gauc": 0.49}),
        System("Wukong", "wukong", "search", paper={"click.auc": 0.21, "click.gauc": 0.13}),
        System("RankMixer", "rankmixer", "search", paper={"click.auc": 0.38, "click.gauc": 0.32}),
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
            System(
                f"<{query}, {key}> masked",
                "est",
                "search",
                (*FULL, f"model.est.masked_blocks=[{query}{key}]"),
                {"click.auc": auc, "click.gauc": gauc},
            )
            for query, key, auc, gauc in (
                ("B", "B", -0.01, -0.00),
                ("B", "N", -0.03, -0.02),
                ("N", "N", -0.03, -0.02),
                ("N", "B", -0.20, -0.20),
            )
        ),
    ),
    "est-2": (
        System("ID-based Model", "est", "search", ("model.est.content=[]", "model.est.csa=false")),
        *(
            System(
                label,
                "est",
                "search",
                (f"model.est.content=[{content}]", "model.est.csa=false"),
                {"click.auc": auc, "click.gauc": gauc},
            )
            for label, content, auc, gauc in (
                ("Side Information", "side_information", 0.44, 0.89),
                ("Semantic ID", "semantic_id", 0.47, 0.64),
                ("SimTier", "simtier", 1.18, 1.58),
                ("SimTier + Side Information", "simtier, side_information", 0.95, 1.47),
            )
        ),
    ),
    "est-3": (
        System("MLP", "dlrm_mlp", "search"),
        *(
            System(label, model, "search", paper={"click.auc": auc, "click.gauc": gauc})
            for label, model, auc, gauc in (  # AUC and GAUC less 0.6895 and 0.6459
                ("AutoInt", "autoint", 0.12, 0.18),
                ("DCNv2", "dcnv2", 0.21, 0.23),
                ("RankMixer", "rankmixer", 0.19, 0.23),
                ("HiFormer", "hiformer", 0.33, 0.34),
                ("MTGR", "mtgr", 0.22, 0.15),
                ("OneTrans", "onetrans", 0.26, 0.18),
                ("OneTrans-D", "onetrans_d", 0.46, 0.41),
                ("OneTrans-F", "onetrans_f", 0.60, 0.48),
                ("EST", "est", 0.68, 0.56),
            )
        ),
    ),
    "est-4": (
        System("Full-Attention", "est", "search", FULL),
        System("LCA", "est", "search", ("model.est.csa=false",), {"click.auc": -0.01, "click.gauc": -0.03}),
        System("LCA + CSA", "est", "search", paper={"click.auc": 0.17, "click.gauc": 0.14}),
    ),
    "mdl-1": (
        System("RankMixer", "rankmixer", "entire"),
        *(
            System(label, "rankmixer", "entire", (f"model.head={head}",))
            for label, head in (
                ("SharedBottom", "shared_bottom"),
                ("MMoE", "mmoe"),
                ("STAR", "star"),
                ("HMoE", "hmoe"),
                ("PEPNet", "pepnet"),
            )
        ),
        System("MDL", "mdl", "entire"),
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
    "onetrans-1": (
        System("DCNv2 + DIN", "dcnv2", "search", ("model.encoder=din",)),
        *(
            System(label, model, "search", (f"model.encoder={encoder}",), {"click.auc": auc, "conversion.auc": cvr})
            for label, model, encoder, auc, cvr in (
                ("Wukong + DIN", "wukong", "din", 0.08, 0.14),
                ("HiFormer + DIN", "hiformer", "din", 0.11, 0.23),
                ("RankMixer + DIN", "rankmixer", "din", 0.27, 0.43),
                ("RankMixer + StackDIN", "rankmixer", "stackdin", 0.40, 0.63),
                ("RankMixer + LONGER", "rankmixer", "longer", 0.49, 0.47),
                ("RankMixer + Transformer", "rankmixer", "transformer", 0.57, 0.52),
            )
        ),
        System("OneTrans (S in the paper)", "onetrans", "search", paper={"click.auc": 1.13, "conversion.auc": 0.90}),
    ),
    "onetrans-2": (
        System("OneTrans", "onetrans", "search"),
        *(
            System(label, "onetrans", "search", settings, {"click.auc": auc, "conversion.auc": cvr})
            for label, settings, auc, cvr in (
                ("Group-wise Tokenizer", ("model.onetrans.tokenizer=group_wise",), -0.10, -0.12),
                ("Timestamp-agnostic Fusion", (AGNOSTIC,), -0.09, -0.20),
                ("Timestamp-agnostic Fusion without [SEP]", (AGNOSTIC, "model.onetrans.sep=false"), -0.13, -0.29),
                ("Shared parameters for all tokens", ("model.onetrans.mixed=false",), -0.15, -0.14),
                ("Full attention", ("model.onetrans.causal=false",), 0.00, -0.03),
                ("Without pyramid stack", ("model.onetrans.pyramid=false",), -0.05, -0.04),
            )
        ),
    ),
}
