"""What KEDA is asked to do for a pool whose `scaling.provider` is `keda`: a pure function of its spec and connection.

KEDA scales the resource itself, never a Deployment: it writes `spec.replicas` through the scale subresource, and the
operator carries that out by the steps of `scaling`. So no busy pod is chosen, whoever decides on the number.

Field names and meanings are those of keda.sh/v1alpha1 and of its trigger `metrics-api`.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode

from perdure_operator.desired import account_name, marked, metadata_of
from perdure_operator.objects import GROUP, VERSION, Kind, Object
from perdure_operator.resources import Connection, Pool

API_VERSION = "keda.sh/v1alpha1"
KINDS: tuple[Kind, ...] = ("ScaledObject", "TriggerAuthentication")
FORBIDDEN = (
    "the operator lacks rights on objects of KEDA: set operator.keda.enabled in the chart's values, or"
    " scaling.provider to builtin"
)
NOT_INSTALLED = "there is no KEDA in this cluster: install it, or set scaling.provider to builtin"
POLLED_EVERY_S = 10
"""How often KEDA asks while there is no pod: a good part of what a pod takes to start, and hundreds of pools ask."""
WINDOW_MAX_S = 3600
"""The longest stabilization window that a HorizontalPodAutoscaler takes."""
_PERCENT = 100


def name_of(pool: Pool) -> str:
    """Of both objects. KEDA makes a label of it, so it is short enough for one."""
    return account_name(pool)


def trigger_authentication(pool: Pool, connection: Connection) -> Object:
    """Where KEDA finds the token that the API wants to be shown; it reads the Secret by rights of its own."""
    secret = connection.api.token_secret
    return marked(
        {
            "apiVersion": API_VERSION,
            "kind": "TriggerAuthentication",
            "metadata": metadata_of(pool, name_of(pool)),
            "spec": {"secretTargetRef": [{"parameter": "token", "name": secret.name, "key": secret.key}]},
        }
    )


def scaled_object(pool: Pool, connection: Connection, build: str, slots: int) -> Object:
    """So many pods that their slots, used as far as they should be, hold what waits for the current build or runs.

    Without a fallback: while the API does not answer, KEDA leaves the number as it is.

    Args:
        build: the current one. Older builds are scaled by the operator, by what is pinned to them.
        slots: of one of its pods.
    """
    scaling = pool.spec.scaling
    stabilized = {"scaleDown": {"stabilizationWindowSeconds": min(scaling.cooldown_seconds, WINDOW_MAX_S)}}
    return marked(
        {
            "apiVersion": API_VERSION,
            "kind": "ScaledObject",
            "metadata": metadata_of(pool, name_of(pool)),
            "spec": {
                "scaleTargetRef": {"apiVersion": f"{GROUP}/{VERSION}", "kind": pool.kind, "name": pool.key.name},
                "pollingInterval": POLLED_EVERY_S,
                "initialCooldownPeriod": scaling.cooldown_seconds,  # before it was ever active; else none holds then
                "cooldownPeriod": scaling.cooldown_seconds,  # to zero; above that, the window
                "minReplicaCount": scaling.min,
                "maxReplicaCount": scaling.max,
                "advanced": {"horizontalPodAutoscalerConfig": {"behavior": stabilized}},
                "triggers": [
                    {
                        "type": "metrics-api",
                        "metricType": "AverageValue",
                        "metadata": {
                            "url": _backlog(pool, connection, build),
                            "valueLocation": "total",
                            "targetValue": f"{slots * scaling.target_utilization / _PERCENT:g}",
                            "activationTargetValue": "0",
                            "authMode": "bearer",
                        },
                        "authenticationRef": {"name": name_of(pool)},
                    }
                ],
            },
        }
    )


def _backlog(pool: Pool, connection: Connection, build: str) -> str:
    """What waits and is in flight for the pool's names, for any build or for this one."""
    query = urlencode([("kind", pool.served), *(("name", name) for name in sorted(pool.names)), ("build", build)])
    namespace = quote(connection.namespace, safe="")
    return f"{connection.api.url.rstrip('/')}/api/v1/namespaces/{namespace}/backlog?{query}"
