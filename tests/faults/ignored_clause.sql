-- Clauses that the planner would pass over.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE scored (ad_id VARCHAR NOT NULL) STORED AS DELTA LOCATION 'scored';
CREATE EXTERNAL TABLE again (ad_id VARCHAR NOT NULL) STORED AS DELTA LOCATION './/scored';
INSERT INTO scored SELECT ad_id FROM impressions TABLESAMPLE (1 PERCENT);
INSERT INTO again SELECT ad_id FROM impressions;
