"""A model made anew every night, for Airflow 2.4 and later: a file for the folder of DAGs.

A run is of the day in which its interval begins, in UTC; runs come one after the other, as `ams daily` wants them. A day that
was killed goes on where it was; a day that was refused (exit code 3) is not made again, and fails the run at once each time.
"""
import datetime

from airflow import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

try:
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:  # before Airflow 3
    from airflow.operators.bash import BashOperator

with DAG(
    dag_id="ams_daily",
    # Since Airflow 3, a plain "30 3 * * *" has no interval, and would mean the day that has just begun.
    schedule=CronDataIntervalTimetable("30 3 * * *", timezone="UTC"),
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
    catchup=True,
    max_active_runs=1,
    default_args={"depends_on_past": True, "retries": 3, "retry_delay": datetime.timedelta(minutes=10)},
) as dag:
    BashOperator(
        task_id="daily",
        bash_command="ams daily daily.toml --day {{ data_interval_start | ds }}",
        cwd="/var/lib/ams",
    )
