"""The four stages of ES3 (UniScale 3.3) as one Spark program.

Stages hand over through Parquet files in a scratch folder beside the output, so each is computed once and the plan of
the next starts from known sizes; on a cluster that folder is on the shared storage that also takes the output.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from features.catalogue import context_names
from features.es3 import attribution, corpus, intra, listwise, queries, report, retrieve, searchify
from features.es3.attribution import Rules
from features.es3.increment import around
from features.es3.tables import Logs, on_days, read_logs
from uniscale.errors import DataError
from uniscale.logs import LogDescription
from uniscale.progress import Progress
from uniscale.samples import QueryRule, SampleSpec
from uniscale.sections import SamplesConfig

LANDING = ("event_id", "task", "at", "request_id", "item_id", "source")


RowCounts = dict[str, dict[str, dict[str, int]]]  # of `listwise.write_rows`


@dataclass(frozen=True)
class Job:
    """One run: what it reads, the days it writes, where its scratch files go, and the stages in order."""

    config: SamplesConfig
    seed: int
    logs: Path
    features: Path
    spark: SparkSession
    days: tuple[date, ...]  # at least one
    tail_days: int
    scratch: Path
    progress: Progress

    def write(self, out: Path) -> dict[str, dict[str, Any]]:
        """Run every stage, write the rows of the days into `out`, and return the counts of each (`report.Counted`).

        Stages that need nothing of one another run at the same time: planning one leaves cores to the other.
        """
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
        events = attribution.task_events(self._near(tables.events), rules)
        with ThreadPoolExecutor(2) as beside:
            corpus = beside.submit(self._corpus, tables.requests, rules) if "searchification" not in skipped else None
            search = self._save("search", self._intra_domain(tables, rules))
            searches = beside.submit(report.count_searches, search, self.days)
            self.progress.advance(note="intra-domain samples")
            landings = self._save("landings", self._attributed(search, events, rules))
            self.progress.advance(note="label attribution")
            requests, of_pseudo = on_days(search, self.days).drop("shortage"), None
            if corpus is not None:
                chosen = self._searchified(tables, rules, events, landings, context, beside, corpus)
                of_pseudo = beside.submit(report.count_pseudo, chosen, self.days)
                pseudo = chosen.where(F.col("placed") & F.col("query").isNotNull())
                further = searchify.pseudo_conversions(pseudo, events, landings, rules)
                every = landings.unionByName(searchify.pseudo_clicks(pseudo, rules)).unionByName(further)
                landings = self._save("all_landings", every)
                requests = requests.unionByName(on_days(pseudo, self.days).select(*requests.columns))
            self.progress.advance(note="searchification")
            of_events = beside.submit(report.count_events, events, landings, self.days, rules)
            labelled = listwise.labelled(requests, landings, spec.tasks)
            requests = self._save("requests", listwise.request_rows(labelled, spec))
            rows = self._write_rows(requests, spec, out)
            self.progress.advance(note="features and list-wise rows")
            days: dict[str, dict[str, Any]] = {
                day.isoformat(): {"rows": rows.get(day.isoformat(), {}), "events": of_events.result()[day.isoformat()],
                                  "searches": searches.result().get(day.isoformat(), {})}
                for day in self.days
            }  # fmt: skip
            for day, counts in (of_pseudo.result() if of_pseudo is not None else {}).items():
                days[day]["searchification"] = counts
            return days

    def _save(self, name: str, frame: DataFrame) -> DataFrame:
        path = str(self.scratch / name)
        frame.write.parquet(path)
        return self.spark.read.schema(frame.schema).parquet(path)

    def _near(self, frame: DataFrame) -> DataFrame:
        """Rows of the days whose events may label a written sample, and of all samples that those may belong to.

        They begin a tail before a written day and end a tail after one, so that an event goes where it belongs and
        not to what is written.
        """
        return on_days(frame, around(self.days, self.tail_days))

    def _until_then(self, frame: DataFrame) -> DataFrame:
        """Rows of all days to the last of `_near`."""
        last = max(self.days) + timedelta(days=self.tail_days)
        return frame.where(F.col("day") <= F.lit(last))

    def _intra_domain(self, tables: Logs, rules: Rules) -> DataFrame:
        searches = self._near(tables.requests).where(F.col("domain") == rules.target)
        lists = intra.exposed_lists(searches, self._near(tables.exposures).drop("day"))
        if tables.candidates is None:
            return self._typed(lists.withColumn("shortage", F.lit(0)))
        candidates = self._near(tables.candidates).drop("day")
        return self._typed(intra.add_unexposed(lists, candidates, self.config.unexposed_per_exposed, self.seed))

    def _typed(self, lists: DataFrame) -> DataFrame:
        return lists.withColumn("query_rule", F.lit(int(QueryRule.TYPED)).cast("tinyint"))

    def _attributed(self, search: DataFrame, events: DataFrame, rules: Rules) -> DataFrame:
        samples = search.select("request_id", "user_id", F.unix_micros("ts").alias("asked"), F.inline("items")).drop(
            "position"
        )
        clicks = attribution.bind_clicks(samples, events, rules)
        return clicks.select(*LANDING).unionByName(attribution.attribute(samples, clicks, events, rules))

    def _corpus(self, requests: DataFrame, rules: Rules) -> Path:
        """Folder of `retrieve.write_corpus` with every query typed in the target domain, by when it was first."""
        typed = self._until_then(requests).where((F.col("domain") == rules.target) & F.col("query").isNotNull())
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
        context: Sequence[str],
        beside: ThreadPoolExecutor,
        known: Future[Path],
    ) -> DataFrame:
        """What became of the clicks on all days of `_near`: result of `queries.choose`."""
        requests = self._until_then(tables.requests)
        columns = [f"context_{name}" for name in context]
        clicks = searchify.unclaimed_clicks(events, landings, self._near(requests), rules, columns)
        clicks = self._save("pseudo_clicks", clicks.withColumn("day", F.to_date("ts")))
        exposures = self._near(tables.exposures).drop("day")
        catalogue = self.spark.read.parquet(str(self.features / "items.parquet"))
        vectors = catalogue.select("item_id", "content")
        found = searchify.pseudo_lists(
            clicks, exposures, events, vectors, self.config.negatives, self.config.similarity_floor
        )
        lists = beside.submit(self._save, "pseudo_lists", found)
        all_events = attribution.task_events(self._until_then(tables.events), rules)
        past = self._save("past", queries.past_queries(clicks, queries.search_clicks(all_events, requests, rules)))
        orphans = past.where("own is null and common is null").join(clicks, "request_id")
        titles = orphans.join(catalogue.select("item_id", "text"), "item_id").where(F.vector_norm("text") > 0)
        nearest = corpus.nearest_queries(titles, known.result() / "ann")
        typed = self.spark.read.parquet(str(known.result() / "rows"))
        return self._save("pseudo", queries.choose(lists.result(), past, nearest, typed))

    def _write_rows(self, requests: DataFrame, spec: SampleSpec, out: Path) -> RowCounts:
        """Ask the feature store for what the written requests need, and write their list-wise rows."""
        items = requests.select(F.lit("item").alias("kind"), "day", F.explode("items.item_id").alias("key"))
        typed = requests.where(F.col("query").isNotNull()).select(F.lit("query"), "day", "query")
        keys = self.scratch / "keys"
        # In order, since the store passes over the rows of its tables whose keys lie outside those of a batch.
        sorted_keys = items.union(typed).distinct().sortWithinPartitions("kind", "key", "day")
        sorted_keys.write.partitionBy("kind").parquet(str(keys))
        item_days, query_days, whole = (self.scratch / name for name in ("item_days", "query_days", "whole_requests"))
        retrieve.write_item_days(keys / "kind=item", self.features, spec, item_days)
        retrieve.write_query_days(keys / "kind=query", self.features, spec, query_days)
        retrieve.write_request_inputs(self.scratch / "requests", self.features, spec, whole)
        return listwise.write_rows(self.spark, whole, item_days, query_days, spec, out / "rows")
