"""A client of the gateway that knows nothing of it but its address: what it can call, and with which messages, it learns
by reflection. It sends impressions and reads scores until each that was acknowledged came back.

    client.py ADDRESS SERVICE COUNT PER_SECOND PROGRESS SECONDS

It appends to the file PROGRESS a line for each acknowledged message, and prints in the end what happened as JSON.
"""

import json
import sys
import threading
import time

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

address, service, count, per_second, progress, seconds = sys.argv[1:]
count, per_second, seconds = int(count), float(per_second), float(seconds)
over = time.monotonic() + seconds
#: What a client does not give up for: the gateway is away or goes down, a call was lost on the way.
PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED,
           grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN}

channel = grpc.insecure_channel(address, options=[("grpc.max_reconnect_backoff_ms", 500),
                                                  ("grpc.initial_reconnect_backoff_ms", 100)])
grpc.channel_ready_future(channel).result(timeout=30)
database = ProtoReflectionDescriptorDatabase(channel)
assert service in database.get_services(), f"{service} is not among {list(database.get_services())}"
pool = descriptor_pool.DescriptorPool(database)
methods = {method.name: method for method in pool.FindServiceByName(service).methods}


def classes(name):
    method = methods[name]
    return message_factory.GetMessageClass(method.input_type), message_factory.GetMessageClass(method.output_type)


Impression, Response = classes("AdTrack")
Request, Score = classes("Scores")
ad_track = channel.unary_unary(f"/{service}/AdTrack", Impression.SerializeToString, Response.FromString)
scores = channel.unary_stream(f"/{service}/Scores", Request.SerializeToString, Score.FromString)

acknowledged, came_back, cursors = {}, {}, set()
told = {"retries": 0, "streams": 0, "repeated": 0, "statuses": {}}


def passing(error):
    told["statuses"][error.code().name] = told["statuses"].get(error.code().name, 0) + 1
    if error.code() not in PASSING or time.monotonic() > over:
        raise error
    time.sleep(0.05)


def send(number):
    impression = Impression(ad_id=f"ad-{number % 10_000:05}", context_id=f"c-{number}", user_id="u")
    impression.impressed_at.FromMilliseconds(1_795_132_800_000 + number)
    while True:
        try:
            return ad_track(impression, timeout=5, metadata=[("idempotency-key", f"k-{number}")])
        except grpc.RpcError as error:
            told["retries"] += 1
            passing(error)


def receive():
    cursor = ""
    while len(came_back) < count and time.monotonic() < over:
        try:
            told["streams"] += 1
            request = Request(cursor=cursor) if cursor else Request(start="earliest")
            for score in scores(request, timeout=max(0.1, over - time.monotonic())):
                told["repeated"] += score.cursor in cursors
                cursors.add(score.cursor)
                cursor = score.cursor
                came_back[score.context_id] = score.score
                if len(came_back) == count:
                    return
        except grpc.RpcError as error:
            passing(error)


receiver = threading.Thread(target=receive)
receiver.start()
began = time.monotonic()
with open(progress, "a", buffering=1) as lines:
    for number in range(count):
        time.sleep(max(0.0, began + number / per_second - time.monotonic()))
        response = send(number)
        assert response.code == 0, response
        acknowledged[f"c-{number}"] = [response.partition, response.offset]
        print(number, file=lines)
receiver.join()
json.dump({"acknowledged": acknowledged, "came_back": came_back, **told}, sys.stdout)
