"""The model section of a configuration: sizes and switches of every architecture of the zoo, one class each."""

from typing import Literal

from pydantic import Field, model_validator

from uniscale.sections import Section


class HHSFTConfig(Section):
    """HHSFT (UniScale 3.4); the switches are the ablations of its Tables 3 and 4."""

    hfa_layers: int = Field(ge=0)
    hfa_dim: int = Field(ge=4, description="d_H")
    hfa_heads: int = Field(ge=1)
    hfa_token_specific: bool = Field(description="false: one shared projection and FFN, a plain Transformer (Table 3)")
    gfa_layers: int = Field(ge=0)
    gfa_dim: int = Field(ge=4, description="d_G")
    gfa_tokens: int = Field(ge=1, description="m, composite tokens")
    gfa_heads: int = Field(ge=1)
    ffn_multiple: int = Field(ge=1, description="hidden width of every FFN, as a multiple of its input")
    expert_dim: int = Field(ge=4)
    residual: bool = Field(description="pre-norm and residuals, which the paper leaves open")
    dref: bool = Field(description="domain-routed expert fusion (Table 4); false: the shared expert alone")
    dapga: bool = Field(description="domain-aware personalised gated attention (Table 4)")

    @model_validator(mode="after")
    def _heads_divide_widths(self) -> "HHSFTConfig":
        for width, heads in ((self.hfa_dim, self.hfa_heads), (self.gfa_dim, self.gfa_heads)):
            if width % heads:
                raise ValueError(f"{heads} heads do not divide a width of {width}")
        return self


class ESTConfig(Section):
    """EST (est.txt 5); the switches are the ablations of its Tables 1, 2 and 4."""

    layers: int = Field(ge=1, description="S")
    dim: int = Field(ge=4, description="d")
    heads: int = Field(ge=1)
    ffn_multiple: int = Field(ge=1, description="hidden width of the SwiGLU FFNs, as a multiple of d")
    head_hidden: list[int] = Field(min_length=1, description="widths of the read-out MLP before the logits")
    user_behaviours: int = Field(ge=1, description="B_u: the newest behaviours, once a request (paper: 300)")
    candidate_behaviours: int = Field(ge=1, description="B_c: behaviours searched for each candidate (paper: 50)")
    attention: Literal["lca", "full"] = Field(description="full: self-attention over [B, N] (Tables 1 and 4)")
    masked_blocks: list[Literal["BB", "BN", "NB", "NN"]] = Field(
        description="blocks <query, key> that full attention leaves out (Table 1)"
    )
    csa: bool = Field(description="content sparse attention among behaviours (Table 4)")
    csa_neighbours: int = Field(ge=1, description="K of CSA (paper: 5)")
    content: list[Literal["simtier", "side_information", "semantic_id"]] = Field(
        description="how content enters the tokens (Table 2); an empty list is the ID-based model"
    )
    simtier_tiers: int = Field(ge=2)
    semantic_levels: int = Field(ge=1, description="semantic ids an item")
    semantic_codes: int = Field(ge=2, description="values of a semantic id")

    @model_validator(mode="after")
    def _consistent(self) -> "ESTConfig":
        if self.dim % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.dim}")
        if self.attention == "full" and self.csa:
            raise ValueError("full attention takes the place of CSA: set csa to false with it")
        if self.attention == "lca" and self.masked_blocks:
            raise ValueError(f"masked_blocks {self.masked_blocks} are of full attention: set attention to full")
        return self


class MDLConfig(Section):
    """MDL (mdl.txt 3); the switches are the ablations of its Table 2."""

    layers: int = Field(ge=1, description="L")
    dim: int = Field(ge=4, description="width of every token; a multiple of the number of feature tokens")
    heads: int = Field(ge=1, description="of the domain-aware attention")
    ffn_multiple: int = Field(ge=1, description="hidden width of every FFN, as a multiple of its input")
    important: list[str] = Field(
        description="id features with embeddings of their own for scenario and for task tokens; absent ones left out"
    )
    task_token: bool = Field(description="false: task towers instead")
    task_feature_interaction: bool = Field(description="false: token mixing instead of domain-aware attention")
    scenario_token: bool = Field(description="false: scenario towers instead")
    global_scenario_token: bool
    scenario_feature_interaction: bool = Field(description="false: token mixing instead of domain-aware attention")
    literal_eq6: bool = Field(description="true: TokenMixing(T + T), as eq. 6 is printed; false: TokenMixing(T) + T")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "MDLConfig":
        if self.dim % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.dim}")
        return self


class DLRMConfig(Section):
    """DLRM-MLP, the paper's base model, with a chosen sequence encoder."""

    hidden: list[int] = Field(min_length=1, description="widths of the layers before the head")


class ModelConfig(Section):
    """Which model, and the sizes of each."""

    name: str = Field(description="an entry of models.zoo")
    champion: str = Field(description="the model trained as first champion when the registry has none")
    embedding_dim: int = Field(ge=2)
    table_rows: int = Field(ge=16, description="rows of every id table; ids are taken modulo")
    encoder: str = Field(description="sequence encoder: mean or din")
    dropout: float = Field(ge=0, lt=1)
    hhsft: HHSFTConfig
    dlrm_mlp: DLRMConfig
    est: ESTConfig
    mdl: MDLConfig
