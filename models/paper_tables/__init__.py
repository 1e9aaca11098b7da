"""Tables and figures of the four papers by name, as comparisons of systems of ours."""

from models.compare import Table
from models.paper_tables.est import EST
from models.paper_tables.mdl import MDL
from models.paper_tables.onetrans import ONETRANS
from models.paper_tables.uniscale import UNISCALE

TABLES: dict[str, Table] = UNISCALE | EST | MDL | ONETRANS
