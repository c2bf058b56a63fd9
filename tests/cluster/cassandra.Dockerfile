# In place of cassandra:5.0, from what tests/servers/cassandra.sh installs. The base has a Java 17.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
COPY lib /opt/cassandra/lib
WORKDIR /opt/cassandra
USER 999:999
