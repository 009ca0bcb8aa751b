# Airflow with what Patchwave needs, and Patchwave itself; every service of docker-compose.yaml but the databases runs it.
FROM apache/airflow:3.3.2-python3.11

# First what changes seldom: a changed DAG does not install 200 packages again.
COPY requirements.txt /opt/airflow/requirements.txt
RUN pip install --no-cache-dir --requirement /opt/airflow/requirements.txt

# Named volumes take over the owner of the folder that they are mounted on.
RUN mkdir -p /opt/airflow/runs /opt/airflow/logs

COPY --chown=airflow:0 dags /opt/airflow/dags
COPY --chown=airflow:0 plugins /opt/airflow/plugins
COPY --chown=airflow:0 include /opt/airflow/include
COPY --chown=airflow:0 compose /opt/airflow/compose

# The triggerer sees neither the DAG bundle nor dags/: modules come from here in every process.
ENV PYTHONPATH=/opt/airflow/include
