from tests.end_to_end.platform import Platform


def test_a_posted_notification_is_sent_once_and_get_says_so(platform: Platform) -> None:
    platform.start_all()
    answer = platform.post(idempotency_key="first")
    assert answer.status == 202
    shown = platform.wait_final(answer.json()["id"])
    assert (shown["status"], shown["attempts"], shown["possible_duplicates"]) == ("SENT", 1, 0)
    platform.assert_one_mail_each([shown["id"]])
    platform.assert_nothing_open()
    assert set(platform.stop_all().values()) == {0}
