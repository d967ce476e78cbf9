"""A portal's operator at the admin, with nothing but a browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from playwright.sync_api import expect

from controller.models import HpcCluster, HpcJob
from controller.services import clusters, host_keys, jobs, links, procedures
from ops import sshd
from tests.slurm_cluster import SlurmCluster
from tests.stack import Stack

from . import browser
from .browser import Visit

LIMIT_MS = 1000 * browser.STEP_LIMIT_S
PAGES = "hpc_job_controller"
SCRIPT = (
    '#!/bin/bash\n#SBATCH --time=5\necho "Hello from $(hostname), job $SLURM_JOB_ID"\nsleep 1\n'
)


@pytest.mark.timeout(180)
def test_an_operator_registers_a_cluster_and_runs_a_job(
    stack_to_visit: Stack, slurm_cluster: SlurmCluster
) -> None:
    stack = stack_to_visit
    hire_operator()
    stack.start_worker()
    stack.start_worker(queues="files")
    with (
        browser.web(stack) as url,
        browser.opened() as chromium,
        browser.visiting(chromium, url) as visit,
    ):
        visit.log_in("operator", "operator")
        register(visit, slurm_cluster)
        trust_the_host(visit, slurm_cluster)
        bootstrap(visit)
        run_a_job(visit)
        disconnect(visit)
        secrets = visit.secrets
    assert HpcJob.objects.get().scheduler_job_id.isdigit()
    for log in stack.directory.glob("*.log"):
        assert not [secret for secret in secrets if secret in log.read_text(errors="replace")], log


def hire_operator() -> User:
    """An account that the web server's own settings know how to check."""
    return User.objects.create(
        username="operator",
        password=PBKDF2PasswordHasher().encode("operator", "salt"),
        is_staff=True,
        is_superuser=True,
    )


def register(visit: Visit, slurm_cluster: SlurmCluster) -> None:
    """Fill in the form; the key is pasted after the picture was taken."""
    server = slurm_cluster.site.new_server(address="127.0.0.2")
    account = slurm_cluster.account()
    key = slurm_cluster.site.key.read_text()
    visit.go(f"{PAGES}/hpccluster/add/")
    page = visit.page
    page.fill("#id_name", "north")
    page.fill("#id_host_name", server.address)
    page.fill("#id_port", str(server.port))
    page.fill("#id_username", account.name)
    page.fill("#id_client_path", f"{account.home}/hpc/")
    page.select_option("#id_scheduler", "slurm")
    visit.picture("register", "#content")
    page.fill("#id_key", key.replace("\n", "\r\n"))
    visit.secrets = [line for line in key.splitlines() if len(line) > 40]
    page.click("input[name=_save]")
    expect(page.locator(".messagelist")).to_contain_text("was added successfully")
    expect(page.locator(".messagelist")).to_contain_text("was stored as")
    expect(page.locator("[aria-current=step]")).to_contain_text("Fetch host keys")
    expect(page.locator("#id_key")).to_have_value("")
    visit.picture("registered")


def trust_the_host(visit: Visit, slurm_cluster: SlurmCluster) -> None:
    """Fetch the keys, compare them with what the site tells, confirm."""
    page = visit.page
    page.get_by_role("button", name="Fetch host keys").click()
    expect(page.locator(".messagelist")).to_contain_text("is asked for")
    page.get_by_role("link", name="Confirm host keys").click()
    published = {sshd.fingerprint(path) for path in slurm_cluster.site.host_keys}
    shown = page.locator("label[for^=key-]")
    assert {text.strip() for text in shown.all_text_contents()} == published
    for box in page.locator("input[name=key]").all():
        box.check()
    visit.picture("host-keys", "#content")
    page.get_by_role("button", name="confirm the ticked keys").click()
    expect(page.locator(".messagelist")).to_contain_text("Confirmed: ecdsa")


def bootstrap(visit: Visit) -> None:
    """Press the button and watch: nobody reloads the page."""
    page = visit.page
    page.get_by_role("button", name="Bootstrap").click()
    page.evaluate("window.isTheSamePage = true")
    first = page.locator("details").first
    expect(first).to_contain_text("Look at the client", timeout=LIMIT_MS)
    visit.picture("bootstrap", "[data-now]")
    expect(page.locator(".hpc-headline")).to_contain_text("Up", timeout=LIMIT_MS)
    expect(first.locator("summary")).to_contain_text("done")
    assert page.evaluate("window.isTheSamePage")
    expect(page.locator(".hpc-facts")).to_contain_text("slurm")
    visit.picture("cluster", "[data-now]")
    page.get_by_role("button", name="Test connection").click()
    expect(page.locator("details").first).to_contain_text("Test the connection")
    expect(page.locator("details").first.locator("summary")).to_contain_text("done")
    visit.picture("cluster-tested")


def run_a_job(visit: Visit) -> None:
    """Draft, submit, watch."""
    visit.go(f"{PAGES}/hpcjob/add/")
    page = visit.page
    page.fill("#id_name", "relaxation")
    page.click(".field-cluster .select2-selection")
    page.fill(".select2-search__field", "nor")
    page.locator(".select2-results__option", has_text="north").click()
    page.fill("#id_script", SCRIPT)
    page.fill("#id_walltime_s", "600")
    page.click("input[name=_continue]")
    expect(page.locator(".hpc-headline")).to_contain_text("Draft")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator(".messagelist")).to_contain_text("1 job accepted")
    page.evaluate("window.isTheSamePage = true")
    expect(page.locator(".hpc-headline")).to_contain_text("Completed", timeout=LIMIT_MS)
    assert page.evaluate("window.isTheSamePage")
    expect(page.locator("[data-part=events]")).to_contain_text("Running → Completed")
    visit.picture("job", "#content")


def disconnect(visit: Visit) -> None:
    """Close the link; what was done is in the history, without the key."""
    page = visit.page
    visit.go(f"{PAGES}/hpccluster/")
    page.get_by_role("link", name="north", exact=True).click()
    page.get_by_role("button", name="Disconnect").click()
    expect(page.locator(".hpc-headline")).to_contain_text("Not wanted", timeout=LIMIT_MS)
    page.get_by_role("link", name="History").click()
    expect(page.locator("#change-history")).to_contain_text("Asked for: Bootstrap.")
    expect(page.locator("#change-history")).to_contain_text("Host keys: confirmed: ecdsa")
    visit.picture("history")


@pytest.mark.timeout(120)
def test_the_pages_hold_whatever_they_have_to_show(stack_to_visit: Stack, tmp_path: Path) -> None:
    """Dark and light, narrow and wide, with hostile words, without code, without a server."""
    session = browser.session_of(hire_operator())
    hostile = describe_a_hostile_cluster(sshd.make_key(tmp_path / "key", "ed25519").read_text())
    with browser.web(stack_to_visit) as url, browser.opened() as chromium:
        for scheme, width in (("dark", 1280), ("light", 420)):
            with browser.visiting(chromium, url, width=width, color_scheme=scheme) as visit:
                visit.enter(session)
                for name, path in hostile.items():
                    visit.go(path)
                    visit.picture(f"{name}-{scheme}-{width}")
                    assert not visit.is_too_wide, name
                if scheme == "dark":
                    keeps_itself_fresh(visit, hostile["cluster"])
        with browser.visiting(chromium, url, java_script_enabled=False) as visit:
            visit.enter(session)
            visit.go(hostile["cluster"])
            visit.page.get_by_role("button", name="Fetch host keys").click()
            expect(visit.page.locator(".messagelist")).to_contain_text("is asked for")


def describe_a_hostile_cluster(key: str) -> dict[str, str]:
    """Rows as a cluster would like them that means harm; the pages to look at."""
    words = "<script>document.title='taken'</script>\x1b[2J\u202e</section>" + "long" * 60
    cluster = clusters.register(
        name="hostile", host_name="login.example", username="ada", client_path="/hpc", key=key
    )
    type(cluster).objects.filter(pk=cluster.pk).update(name="<script>alert(1)</script>")
    old, new = (("ssh-ed25519", "SHA256:" + letter * 43, "192.0.2.1") for letter in "AB")
    host_keys.record(cluster.pk, [old])
    host_keys.confirm(cluster, [row.pk for row in cluster.host_keys.all()])
    host_keys.record(cluster.pk, [new, ("<b>", "SHA256:" + "C" * 43, "<img src=x>")])
    clusters.connect(cluster)
    lease = links.take(cluster.pk, "<holder>")
    assert lease is not None
    links.record_up(cluster.pk, lease.epoch, {"host": words[:200], "last_death": words})
    links.record_blocked(cluster.pk, lease.epoch, "setup_commands", words)
    made = procedures.begin(cluster.pk, "test", "worker")
    procedures.note(made.pk, words, "failed", 3.2, words)
    procedures.finish(made.pk, "login_refused", words)
    job = HpcJob.objects.create(name="<script>alert(2)</script>", cluster=cluster)
    jobs.submit(job, {"script": "#!/bin/sh\n"})
    jobs.block(job.pk, "site", words)
    place = f"{PAGES}/hpccluster/{cluster.pk}"
    return {
        "cluster": f"{place}/change/",
        "keys": f"{place}/host-keys/",
        "blocked-job": f"{PAGES}/hpcjob/{job.pk}/change/",
    }


def keeps_itself_fresh(visit: Visit, path: str) -> None:
    """What is open stays open, trouble is told, and goes away."""
    page = visit.page
    visit.go(path)
    cluster_id = int(re.findall(r"/(\d+)/", path)[0])
    shown = page.locator("details[id^=hpc-procedure]").last
    expect(shown).to_have_attribute("open", "")
    browser.aside(lambda: clusters.test(HpcCluster.objects.get(pk=cluster_id)))
    page.reload()
    expect(shown).not_to_have_attribute("open", "")
    shown.locator("summary").click()
    browser.aside(lambda: begin_the_test(cluster_id))
    expect(page.locator("details").first).to_contain_text("To 192.0.2.1.")
    expect(shown).to_have_attribute("open", "")
    page.context.clear_cookies()
    expect(page.locator("[data-trouble]")).to_contain_text("no longer logged in")
    assert page.title() != "taken"


def begin_the_test(cluster_id: int) -> None:
    """What a worker does."""
    claimed = procedures.claim_for(cluster_id, "test", "worker")
    assert claimed is not None
    procedures.note(claimed.pk, "Log in", "done", 0.2, "To 192.0.2.1.")
