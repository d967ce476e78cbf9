"""The site's settings of the cluster client: take away a `#` and change the value.

What is set here goes before what the server sends, and after the environment. What is left as a
comment shows the default. The file must be yours and not writable by others. It is Python:
paths may be built with `os.path`; relative ones are refused. The README explains each setting.
"""

# Beside client.py unless set:
# HPC_LOG_DIRECTORY = "<client path>/log"
# HPC_JOB_WORKING_DIRECTORY = "<client path>/jobs"
# HPC_STATE_DIRECTORY = "<client path>/state"

# HPC_SCHEDULER_CLASS = "local"
# HPC_DAEMON_PID_FILE = "/tmp/job_controller.pid"
# HPC_WEBSOCKET_SERVER = "ws://localhost:8001"

# HPC_POLL_INTERVAL_S = 10.0
# HPC_POLL_INTERVAL_IDLE_S = 30.0
# HPC_HINT_INTERVAL_S = 0.2
# HPC_SUBMIT_PARALLEL = 1
# HPC_COMMAND_LIMIT_S = 60.0
# HPC_LOGIN_LIMIT_S = 60.0
# HPC_LOST_AFTER_S = 86400.0

# HPC_LOG_SIZE_BYTES = 10485760
# HPC_LOG_FILES = 5
# HPC_LOG_LEVEL = "INFO"
# HPC_SOCKET_CHECK_S = 60.0

# HPC_ALLOW_ROOT = False
