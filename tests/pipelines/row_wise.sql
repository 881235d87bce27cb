-- Everything that a streaming query may say about a topic, each form as a branch: however the topic is cut into
-- micro-batches, the table is the same.

CREATE EXTERNAL TABLE ads
STORED AS KAFKA LOCATION 'kafka://localhost:9092/ad-impressions'
OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression', 'on_null_value' 'row');

CREATE EXTERNAL TABLE contents STORED AS DELTA LOCATION 'queries/data/content_with_categories';

CREATE FUNCTION click_probability(DOUBLE, DOUBLE, DOUBLE) RETURNS DOUBLE
LANGUAGE XGBOOST AS 'queries/data/click_probability.json';

CREATE VIEW dear AS SELECT ad_id, _partition, _offset, bid FROM ads WHERE bid > $dear;

CREATE VIEW cheap_contents AS SELECT ad_id, price FROM contents WHERE price < (SELECT avg(price) FROM contents);

CREATE EXTERNAL TABLE row_wise (form VARCHAR NOT NULL, part INT NOT NULL, at BIGINT NOT NULL, value VARCHAR)
STORED AS DELTA PARTITIONED BY (form) LOCATION 'tables/row_wise';

INSERT INTO row_wise
WITH labelled AS (SELECT _partition, _offset, unnest(labels) AS label FROM ads)
SELECT 'projection', _partition, _offset, upper(ad_id) || coalesce(placement.page, '-') FROM ads
UNION ALL
SELECT 'filter', _partition, _offset, user_id FROM ads WHERE bid > 10 AND placement.slot = 3
UNION ALL
SELECT 'unnest', _partition, _offset, label FROM labelled
UNION ALL
SELECT 'inner join', a._partition, a._offset, c.category
FROM ads a JOIN contents c ON a.ad_id = c.ad_id AND c.rank > 0.2
UNION ALL
SELECT 'left join', a._partition, a._offset, c.category FROM ads a LEFT JOIN contents c ON a.ad_id = c.ad_id
UNION ALL
SELECT 'semi join', a._partition, a._offset, a.ad_id FROM ads a LEFT SEMI JOIN cheap_contents c ON a.ad_id = c.ad_id
UNION ALL
SELECT 'anti join', a._partition, a._offset, a.ad_id FROM ads a LEFT ANTI JOIN contents c ON a.ad_id = c.ad_id
UNION ALL
SELECT 'exists', _partition, _offset, ad_id FROM ads
WHERE EXISTS (SELECT 1 FROM contents c WHERE c.ad_id = ads.ad_id AND c.category = 'cars')
UNION ALL
SELECT 'in', _partition, _offset, ad_id FROM ads WHERE ad_id IN (SELECT ad_id FROM contents WHERE rank < 0.5)
UNION ALL
SELECT 'not in', _partition, _offset, ad_id FROM ads WHERE ad_id NOT IN (SELECT ad_id FROM contents)
UNION ALL
SELECT 'scalar', _partition, _offset, ad_id FROM ads WHERE bid > (SELECT avg(price) FROM contents)
UNION ALL
SELECT 'aggregated lookup', a._partition, a._offset, CAST(m.n AS VARCHAR)
FROM ads a JOIN (SELECT ad_id, count(*) AS n FROM contents GROUP BY ad_id) m ON a.ad_id = m.ad_id
UNION ALL
SELECT 'view', _partition, _offset, ad_id FROM dear
UNION ALL
SELECT 'model', a._partition, a._offset, CAST(click_probability(c.rank, c.price, a.bid) AS VARCHAR)
FROM ads a JOIN contents c ON a.ad_id = c.ad_id;

CREATE EXTERNAL TABLE counted (part INT NOT NULL, at BIGINT NOT NULL, ad_id VARCHAR, headers INT)
STORED AS DELTA LOCATION 'tables/counted';

INSERT INTO counted SELECT _partition, _offset, ad_id, CAST(cardinality(_headers) AS INT) FROM ads;
