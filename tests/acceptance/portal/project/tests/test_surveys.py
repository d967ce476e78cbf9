from django.db import transaction
from django.db.models import ProtectedError
from django.test import TestCase
from django.urls import reverse
from people.models import Person
from surveys.models import Survey

from controller.lifecycle import JobStatus
from controller.models import HpcJob
from controller.services import clusters, jobs


class SurveyTests(TestCase):
    def setUp(self) -> None:
        self.person = Person.objects.create(
            address="ada@example.org", is_superuser=True, is_staff=True
        )
        clusters.register(name="bright-site", host_name="localhost", client_path="/b")
        self.site = clusters.register(name="dark-site", host_name="localhost", client_path="/d")

    def test_a_survey_goes_where_it_chooses_with_what_it_renders(self) -> None:
        survey = Survey(field_of_view="M31", owner=self.person)
        self.assertIs(survey.submit({"exposures": 2}), JobStatus.PENDING)
        self.assertEqual(survey.cluster, self.site)
        self.assertIn("seq 2", survey.script)

    def test_a_refused_survey_can_be_mended_and_given_again(self) -> None:
        survey = Survey(field_of_view="M31")
        with self.assertRaises(KeyError):
            survey.submit({})
        self.assertFalse(HpcJob.objects.exists())
        survey.submit({"exposures": 1})
        self.assertEqual(Survey.objects.get().status, JobStatus.PENDING)

    def test_a_survey_given_as_a_plain_job_is_submitted_as_a_survey(self) -> None:
        job = HpcJob.objects.get(pk=Survey.objects.create(field_of_view="M31").pk)
        job.name = "given"
        jobs.submit_many([(job, {"exposures": 2})])
        survey = Survey.objects.get()
        self.assertEqual((survey.name, survey.cluster), ("given", self.site))
        self.assertIn("seq 2", survey.script)

    def test_a_job_is_loaded_as_the_portals_own_kind(self) -> None:
        survey = Survey.objects.create(field_of_view="M31")
        self.assertEqual(jobs.load(survey.pk), survey)
        self.assertIsInstance(jobs.load(survey.pk), Survey)

    def test_listeners_get_the_portals_own_kind(self) -> None:
        survey = Survey.objects.create(field_of_view="M31")
        with self.captureOnCommitCallbacks(execute=True):
            survey.submit({"exposures": 1})
        with self.captureOnCommitCallbacks(execute=True):
            survey.cancel()
        words = [notice.words for notice in survey.notices.all()]
        self.assertEqual(words, ["M31 is Pending", "M31 is Cancelled"])

    def test_a_survey_at_work_can_not_be_deleted_by_a_cascade_either(self) -> None:
        survey = Survey.objects.create(field_of_view="M31")
        survey.submit({"exposures": 1})
        for rows in (Survey.objects.all(), HpcJob.objects.all()):
            with self.assertRaises(ProtectedError), transaction.atomic():
                rows.delete()
        survey.cancel()
        Survey.objects.all().delete()
        self.assertFalse(HpcJob.objects.exists())

    def test_the_admin_shows_jobs_of_the_portals_people(self) -> None:
        survey = Survey.objects.create(field_of_view="M31", owner=self.person)
        self.client.force_login(self.person)
        page = self.client.get(reverse("admin:hpc_job_controller_hpcjob_change", args=[survey.pk]))
        self.assertContains(page, "ada@example.org")
