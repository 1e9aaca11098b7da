"""The four stages of ES3 (UniScale 3.3) as one Spark program.

Stages hand over through Parquet files in a scratch folder beside the output, so each is computed once and the plan of
the next starts from known sizes; on a cluster that folder is on the shared storage that also takes the output.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from features.catalogue import context_names
from features.es3 import attribution, corpus, intra, listwise, queries, report, retrieve, searchify
from features.es3.attribution import Rules
from features.es3.tables import Logs, read_logs, within
from features.splits import Splits
from uniscale.errors import DataError
from uniscale.logs import LogDescription
from uniscale.progress import Progress
from uniscale.samples import QueryRule, SampleSpec
from uniscale.sections import SamplesConfig

LANDING = ("event_id", "task", "at", "request_id", "item_id", "source")


@dataclass(frozen=True)
class Job:
    """One run: what it reads, where its scratch files go, and the stages in order."""

    config: SamplesConfig
    seed: int
    logs: Path
    features: Path
    spark: SparkSession
    splits: Splits
    scratch: Path
    progress: Progress

    def write(self, out: Path) -> dict[str, Any]:
        """Run every stage, write rows, spec and items into `out`, and return the manifest."""
        description, spec = LogDescription.load(self.logs), SampleSpec.load(self.features)
        if spec.tasks != tuple(description.tasks) or spec.domains != description.domains:
            raise DataError(
                f"{self.features} was made from other logs than {self.logs}: tasks {spec.tasks} and domains "
                f"{spec.domains} against {tuple(description.tasks)} and {description.domains}; build the features again"
            )
        skipped = report.skipped_stages(description, self.config)
        rules = Rules.of(self.config, description.target, description.tasks)
        context = context_names(description)
        tables = read_logs(self.spark, self.logs, "unexposed expansion" not in skipped, context)
        catalogue = self.spark.read.parquet(str(self.features / "items.parquet"))
        counts: dict[str, Any] = {}

        search = self._save("search", self._intra_domain(tables, rules))
        self.progress.advance(note="intra-domain samples")
        events = self._save("events", attribution.task_events(self._labelling(tables.events), rules))
        landings = self._save("landings", self._attributed(search, events, rules))
        self.progress.advance(note="label attribution")
        written = report.split_of(self.splits).isNotNull()
        requests = search.where(written).drop("shortage")
        if "searchification" not in skipped:
            pseudo, counts["searchification"] = self._searchified(tables, rules, events, landings, catalogue, context)
            further = searchify.pseudo_conversions(pseudo, events, landings, rules)
            every = landings.unionByName(searchify.pseudo_clicks(pseudo, rules)).unionByName(further)
            landings = self._save("all_landings", every)
            requests = requests.unionByName(pseudo.where(written).select(*requests.columns))
        self.progress.advance(note="searchification")
        labelled = listwise.labelled(requests, landings, spec.tasks)
        requests = self._save("requests", listwise.request_rows(labelled, spec))
        self._write_rows(requests, spec, out)
        self.progress.advance(note="features and list-wise rows")
        spec.save(out)
        shutil.copyfile(self.features / "items.parquet", out / "items.parquet")
        counts["events"] = report.count_events(events, landings, self.splits, rules)
        counts["search_requests"] = report.count_searches(tables.requests, search, self.splits, rules)
        counts["rows"] = report.count_rows(self.spark.read.parquet(str(out / "rows")), self.splits, rules)
        return report.manifest(out, self.logs, self.features, self.seed, self.splits, skipped, rules, counts)

    def _save(self, name: str, frame: DataFrame) -> DataFrame:
        path = str(self.scratch / name)
        frame.write.parquet(path)
        return self.spark.read.schema(frame.schema).parquet(path)

    def _labelling(self, frame: DataFrame) -> DataFrame:
        """Rows of the days whose events may label a written sample, and of all samples that those may belong to.

        It starts a tail before training and ends a tail after the test, so that an event goes where it belongs and
        not to what is written.
        """
        tail = timedelta(days=self.splits.tail_days)
        return within(frame, self.splits.train[0] - tail, self.splits.test[1] + tail)

    def _until_then(self, frame: DataFrame) -> DataFrame:
        """Rows of all days to the last of `_labelling`."""
        return frame.where(F.col("day") <= F.lit(self.splits.test[1] + timedelta(days=self.splits.tail_days)))

    def _intra_domain(self, tables: Logs, rules: Rules) -> DataFrame:
        searches = self._labelling(tables.requests).where(F.col("domain") == rules.target)
        lists = intra.exposed_lists(searches, self._labelling(tables.exposures).drop("day"))
        if tables.candidates is None:
            return self._typed(lists.withColumn("shortage", F.lit(0)))
        candidates = self._labelling(tables.candidates).drop("day")
        return self._typed(intra.add_unexposed(lists, candidates, self.config.unexposed_per_exposed, self.seed))

    def _typed(self, lists: DataFrame) -> DataFrame:
        return lists.withColumn("query_rule", F.lit(int(QueryRule.TYPED)).cast("tinyint"))

    def _attributed(self, search: DataFrame, events: DataFrame, rules: Rules) -> DataFrame:
        samples = search.select("request_id", "user_id", F.unix_micros("ts").alias("asked"), F.inline("items")).drop(
            "position"
        )
        clicks = self._save("clicks", attribution.bind_clicks(samples, events, rules))
        first, last = self.splits.train
        trainable = clicks.where(F.to_date(F.timestamp_micros("asked")).between(F.lit(first), F.lit(last)))
        if trainable.isEmpty():
            raise DataError(
                f"no positive {rules.primary} in {rules.target} from {first} to {last}, so there is nothing to train "
                f"on: events of type {rules.tasks[rules.primary]} must name their request and an item it exposed, "
                f"within {rules.windows[rules.primary]} (samples.click_window_hours, samples.conversion_window_days)"
            )
        return clicks.select(*LANDING).unionByName(attribution.attribute(samples, clicks, events, rules))

    def _corpus(self, requests: DataFrame, rules: Rules) -> Path:
        """Folder of `retrieve.write_corpus` with every query typed in the target domain, by when it was first."""
        typed = requests.where((F.col("domain") == rules.target) & F.col("query").isNotNull())
        first = typed.groupBy("query").agg(F.min(F.unix_micros("ts")).alias("first_asked"))
        self._save("corpus_keys", first.sort("first_asked", "query"))
        retrieve.write_corpus(self.scratch / "corpus_keys", self.features, self.scratch / "corpus")
        return self.scratch / "corpus"

    def _searchified(
        self,
        tables: Logs,
        rules: Rules,
        events: DataFrame,
        landings: DataFrame,
        catalogue: DataFrame,
        context: Sequence[str],
    ) -> tuple[DataFrame, dict[str, Any]]:
        """Pseudo-requests of all days of `_labelling`, and what became of the clicks on the days that are written."""
        requests = self._until_then(tables.requests)
        columns = [f"context_{name}" for name in context]
        clicks = searchify.unclaimed_clicks(events, landings, self._labelling(requests), rules, columns)
        clicks = self._save("pseudo_clicks", clicks.withColumn("day", F.to_date("ts")))
        exposures = self._labelling(tables.exposures).drop("day")
        all_events = attribution.task_events(self._until_then(tables.events), rules)
        past = self._save("past", queries.past_queries(clicks, queries.search_clicks(all_events, requests, rules)))
        orphans = past.where("own is null and common is null").join(clicks, "request_id")
        titles = orphans.join(catalogue.select("item_id", "text"), "item_id").where(F.vector_norm("text") > 0)
        known = self._corpus(requests, rules)
        nearest = corpus.nearest_queries(titles, known / "ann")
        vectors = catalogue.select("item_id", "content")
        lists = searchify.pseudo_lists(
            clicks, exposures, events, vectors, self.config.negatives, self.config.similarity_floor
        )
        typed = self.spark.read.parquet(str(known / "rows"))
        chosen = self._save("pseudo", queries.choose(lists, past, nearest, typed))
        usable = chosen.where(F.col("placed") & F.col("query").isNotNull())
        return usable, report.count_pseudo(chosen.where(report.split_of(self.splits).isNotNull()))

    def _write_rows(self, requests: DataFrame, spec: SampleSpec, out: Path) -> None:
        """Ask the feature store for what the written requests need, and write their list-wise rows."""
        items = requests.select(F.lit("item").alias("kind"), "day", F.explode("items.item_id").alias("key"))
        typed = requests.where(F.col("query").isNotNull()).select(F.lit("query"), "day", "query")
        keys = self.scratch / "keys"
        items.union(typed).distinct().write.partitionBy("kind").parquet(str(keys))
        item_days, query_days, whole = (self.scratch / name for name in ("item_days", "query_days", "whole_requests"))
        retrieve.write_item_days(keys / "kind=item", self.features, spec, item_days)
        retrieve.write_query_days(keys / "kind=query", self.features, spec, query_days)
        retrieve.write_request_inputs(self.scratch / "requests", self.features, spec, whole)
        listwise.write_rows(self.spark, whole, item_days, query_days, spec, out / "rows")
