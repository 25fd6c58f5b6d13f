# The image of every Airflow service: Airflow with this project baked in. Built by
# `docker compose build`; nothing here needs BuildKit or a certain architecture.
ARG AIRFLOW_IMAGE=apache/airflow:3.3.2-python3.11
FROM ${AIRFLOW_IMAGE}

USER airflow
WORKDIR /opt/airflow

# Dependencies first: a change of the code does not install them again.
COPY --chown=airflow:0 pyproject.toml constraints.txt ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['postgres'], sep='\n')" > /tmp/requirements.txt \
 && pip install --no-cache-dir --disable-pip-version-check -c constraints.txt -r /tmp/requirements.txt \
 && rm /tmp/requirements.txt \
 # Docker copies a folder's owner to the volume that is mounted on it first.
 && mkdir -p exports logs

COPY --chown=airflow:0 README.md LICENSE ./
COPY --chown=airflow:0 include include
COPY --chown=airflow:0 plugins plugins
COPY --chown=airflow:0 dags dags
# Editable, so that there is one import path: plugins/, as everywhere else.
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps -e .
