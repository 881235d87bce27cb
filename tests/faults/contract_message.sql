-- The columns of the sink are not those of the message that it is to hold.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE scored (ad_id VARCHAR, bid BIGINT NOT NULL, usr_id VARCHAR NOT NULL)
STORED AS DELTA LOCATION 'scored'
OPTIONS ('contract.proto' 'proto/ads.proto', 'contract.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE half (ad_id VARCHAR) STORED AS DELTA LOCATION 'half' OPTIONS ('contract.proto' 'proto/ads.proto');
INSERT INTO scored SELECT ad_id, 1, 'u' FROM impressions;
INSERT INTO half SELECT ad_id FROM impressions;
