"""The model section of a configuration: sizes and switches of every architecture of the zoo, one class each."""

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
