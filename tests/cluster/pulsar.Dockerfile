# In place of apachepulsar/pulsar, from what tests/servers/pulsar.sh installs. The base has a Java 17.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
COPY bin /pulsar/bin
COPY conf /pulsar/conf
COPY instances /pulsar/instances
COPY lib /pulsar/lib
WORKDIR /pulsar
USER 10000:0
