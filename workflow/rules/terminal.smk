# What a person sees of a run: a line for each job, how much is done, and how much time is left.
#
# Snakemake's own account has some ten lines a job. It stays whole in .snakemake/log, in dry runs and
# with --verbose, and so do failures, everywhere. (No setting shortens the terminal alone: `quiet`
# and `message:` shorten the log as well.)
import time

from snakemake.logging import DefaultFormatter, get_event, logger as snakemake_logger
from snakemake_interface_logger_plugins.common import LogEvent


class ShortAccount(DefaultFormatter):
    """Snakemake's formatter, with one line for each job that starts."""

    done, total, started = 0, 0, time.monotonic()

    def format_run_info(self, msg):
        self.total = int(msg["msg"].split()[-1])  # the last line of its table of jobs
        return f"{self.total} jobs"

    def format_job_info(self, msg):
        left = ""
        if self.done:
            seconds = (time.monotonic() - self.started) / self.done * (self.total - self.done)
            left = f", {seconds / 60:.0f} min left" if seconds > 90 else f", {seconds:.0f} s left"
        names = (str(value).removeprefix(path_of("")) for value in msg["wildcards"].values())
        row = os.sep.join(filter(None, names))
        share = 100 * self.done // max(1, self.total)
        return f"{share:3} %{left:14} {msg['rule_name']} {row}".rstrip()

    def format_progress(self, msg):
        return f"100 %, {msg['total']} jobs done"


CHATTER = ("Select jobs", "Execute ", "Building DAG", "Using shell", "Assuming unrestricted")
HIDDEN = (LogEvent.WORKFLOW_STARTED, LogEvent.JOB_FINISHED, LogEvent.RESOURCES_INFO)


def is_shown(record):
    """Whether a message belongs into the short account; progress does at its end."""
    event, text = get_event(record), str(record.msg)
    if event == LogEvent.PROGRESS and record.done < record.total:
        ACCOUNT.done, ACCOUNT.total = record.done, record.total
        return False
    return event not in HIDDEN and not text.startswith(CHATTER)


ACCOUNT = ShortAccount(show_failed_logs=True)


if IS_MAIN:
    for handler in snakemake_logger.handlers:
        settings = workflow.output_settings
        if handler.name == "DefaultStreamHandler" and not (settings.dryrun or settings.verbose):
            handler.setFormatter(ACCOUNT)
            handler.addFilter(is_shown)
