"""The little shell: what operators send is understood, everything else is an honest 127."""

import pytest

from awsim import shell

BOOT_ID = "/proc/sys/kernel/random/boot_id"
REBOOT_SCRIPT = """m=/var/tmp/patchwave-1f
b=$(cat /proc/sys/kernel/random/boot_id)
[ -e $m ] || { echo $b > $m; exit 194; }
[ "$(cat $m)" != "$b" ] || { echo "no new boot"; exit 1; }
echo "rebooted, boot id $b"
"""


@pytest.mark.parametrize(
    ("script", "status", "printed"),
    [
        ("echo hello world", 0, "hello world\n"),
        ("exit 3", 3, ""),
        ("false", 1, ""),
        ("true; false; true", 0, ""),
        ('a=1; b=2\n[ "$a" != "$b" ] && echo differ', 0, "differ\n"),
        ("[ x = x ] || echo no", 0, ""),
        ("if [ -e /nowhere ]; then echo yes; else echo no; fi", 0, "no\n"),
        ("if false; then echo a; elif true; then echo b; fi", 0, "b\n"),
        ("{ echo one; echo two; } > /tmp/f; cat /tmp/f", 0, "one\ntwo\n"),
        ("echo 'a $b' \"c d\"", 0, "a $b c d\n"),
        ("! true || echo inverted", 0, "inverted\n"),
        ("uptime -s", 0, "2026-01-01 00:00:00\n"),
        ("# only a comment", 0, ""),
        ('x=$(uptime -s)\necho "since ${x}"', 0, "since 2026-01-01 00:00:00\n"),
    ],
)
def test_scripts_do_what_a_shell_does(script, status, printed):
    """Status and output of each."""
    result = shell.run(script, {}, facts={"uptime -s": "2026-01-01 00:00:00"})
    assert (result.exit_code, result.stdout) == (status, printed)


def test_an_unknown_command_is_not_found():
    """Nothing is executed for real, and nothing is guessed."""
    result = shell.run("systemctl restart nginx", {})
    assert (result.exit_code, result.stderr) == (127, "sh: systemctl: command not found\n")


def test_unknown_grammar_is_a_syntax_error():
    """Better a clear 2 than a wrong answer."""
    assert shell.run("cat < /etc/passwd | wc -l", {}).exit_code == 2


def test_the_reboot_script_asks_for_a_reboot_then_proves_it():
    """First run: marker and 194. Same boot: failure. New boot: success."""
    files = {BOOT_ID: "one\n"}
    assert shell.run(REBOOT_SCRIPT, files).exit_code == 194
    again = shell.run(REBOOT_SCRIPT, files)
    assert (again.exit_code, again.stdout) == (1, "no new boot\n")
    files[BOOT_ID] = "two\n"
    assert shell.run(REBOOT_SCRIPT, files).stdout == "rebooted, boot id two\n"


def test_the_agent_reboots_on_194_and_runs_the_script_again(aws):
    """The invocation stays InProgress meanwhile; files below /tmp are gone, those below /var/tmp stay."""
    host = aws.hosts("web")[0]
    aws.script(host, lines=["echo x > /tmp/lost"])
    command = aws.script(host, lines=REBOOT_SCRIPT.splitlines())
    aws.advance(30)
    assert aws.details(command) == {host: "InProgress"}
    aws.advance(300)
    told = aws.ssm.get_command_invocation(CommandId=command, InstanceId=host)
    assert (told["Status"], told["ResponseCode"]) == ("Success", 0)
    assert told["StandardOutputContent"].startswith("rebooted, boot id ")
    gone = aws.script(host, lines=["cat /tmp/lost"])
    aws.advance(30)
    assert aws.ssm.get_command_invocation(CommandId=gone, InstanceId=host)["ResponseCode"] == 1
    begun = [line for line in aws.journal() if line["event"] == "command_begun"]
    assert [line["operation"] for line in begun] == ["Shell", "Shell", "Shell"]
