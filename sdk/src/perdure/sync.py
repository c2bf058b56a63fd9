"""The blocking face of the client: the async one on an event loop in a thread of its own.

    with Client.embedded(my_app).sync as client:
        print(client.execute(order, "sku-1"))

It is made from the async classes: whatever they can, it can, under the same names, without `await`. Their types are in
`sync.pyi`, which is made from the same classes.
"""

from perdure._client.blocking import SyncClient as SyncClient
from perdure._client.blocking import SyncHandle as SyncHandle
from perdure._client.blocking import SyncTaskHandle as SyncTaskHandle
