"""Activations against the running service: of an honest terminal, and with something altered."""

import unittest
from collections.abc import Iterator
from typing import Any

import protocol
import service
from answers import Refused
from fixture import (
    AES,
    MASTER_AES,
    MASTER_AES_TDES,
    MASTER_TDES,
    TDES,
    TerminalCase,
    a_card,
)
from stubs import payload, terminals
from tamper import bits_flipped, with_other_payload, with_other_proof
from terminal import Step, Terminal


class Activation(TerminalCase):
    """What holds for every kind of terminal."""

    def played(self, terminal: Terminal) -> Iterator[tuple[Step, Any, Any]]:
        """Each exchange with its request and answer, before the terminal judges the answer."""
        for step in terminal.steps(self.code, self.card):
            request = step.ask()
            yield step, request, getattr(self.link, step.call)(request)

    def test_both_sides_come_to_the_same_keys(self) -> None:
        terminal = self.registered()
        terminal.activate(self.link, self.code, self.card)
        base = service.development_keys()[self.kind.base_key]
        derived = self.kind.dukpt.from_base(base, terminal.keys.key_id)
        self.assertEqual(terminal.keys.initial_key, derived.initial_key)
        known = self.backend.terminal(self.name)
        self.assertEqual(known.state, terminals.TERMINAL_STATE_TESTED)
        self.assertEqual(known.initial_key_id, terminal.keys.key_id)
        self.assertEqual(known.check_value, terminal.keys.check_value())
        self.assertEqual(known.activation, terminal.activation)
        enabled = self.backend.enable(self.name)
        self.assertEqual(enabled.state, terminals.TERMINAL_STATE_ACTIVE)

    def test_a_terminal_without_keys_asks_for_nothing_under_them(self) -> None:
        terminal = self.registered()
        for ask in (terminal.ask_parameters, terminal.update):
            with self.assertRaisesRegex(ValueError, "no keys serve yet"):
                ask()

    def test_parameters_are_those_of_registration_and_profile(self) -> None:
        terminal = self.active()
        applied = terminal.parameters
        self.assertEqual(applied.merchant_name, "Café Interop")
        self.assertEqual(applied.merchant_id, "INTEROP1")
        known = self.backend.terminal(self.name)
        limits = self.backend.limits(known.profile)
        self.assertEqual(applied.currency, limits.currency)
        self.assertEqual(applied.single_limit_minor, limits.single_amount_minor)
        self.assertEqual(applied.daily_limit_minor, limits.daily_amount_minor)
        self.assertEqual(known.parameters_version, applied.version)

    def test_every_check_of_the_test_transaction_passes(self) -> None:
        terminal = self.active()
        checks = set(payload.Check.keys()) - {"CHECK_UNSPECIFIED"}
        self.assertEqual(terminal.verdicts, dict.fromkeys(checks, True))

    def test_no_answer_is_taken_with_a_bit_flipped(self) -> None:
        terminal = self.registered()
        for step, _, answer in self.played(terminal):
            for wrong in bits_flipped(answer):
                with self.assertRaises(Refused, msg=step.call):
                    step.accept(wrong)
            step.accept(answer)
        self.assertEqual(terminal.tests_passed, terminal.tests_required)

    def test_the_same_request_again_gets_the_same_bytes(self) -> None:
        for step, request, answer in self.played(self.registered()):
            self.assertEqual(getattr(self.link, step.call)(request), answer, step.call)
            step.accept(answer)

    def test_an_altered_request_is_refused_and_harms_nothing(self) -> None:
        terminal = self.registered()
        for step in terminal.steps(self.code, self.card):
            request = step.ask()
            for wrong in (with_other_payload(request), with_other_proof(request)):
                with self.subTest(step.call), self.refused("ACTIVATION_REFUSED"):
                    getattr(self.link, step.call)(wrong)
            step.accept(getattr(self.link, step.call)(request))
        self.assertEqual(terminal.tests_passed, terminal.tests_required)

    def test_an_answer_of_another_session_is_not_taken(self) -> None:
        terminal = self.registered()
        old = self.link.BeginActivation(terminal.begin(self.code))
        terminal.begin(self.code)
        with self.assertRaises(Refused) as caught:
            terminal.begun(old)
        self.assertEqual(caught.exception.fault, payload.FAULT_AUTHENTICATION)

    def test_a_fault_that_the_terminal_found_is_on_its_timeline(self) -> None:
        terminal = self.registered()
        terminal.begun(self.link.BeginActivation(terminal.begin(self.code)))
        answer = self.link.DeliverKeys(terminal.deliver())
        answer.proof = bytes(len(answer.proof))
        with self.assertRaises(Refused) as caught:
            terminal.delivered(answer)
        fault = caught.exception.fault
        self.link.ReportStep(terminal.report_fault(payload.STEP_DELIVER, fault))
        last = self.backend.terminal(self.name).timeline[-1]
        self.assertEqual((last.step, last.reason), ("ReportStep", "AUTHENTICATION"))

    def test_a_mistyped_code_is_not_even_sent(self) -> None:
        terminal = self.registered()
        first = "1" if self.code[0] == "0" else "0"
        with self.assertRaises(ValueError):
            terminal.begin(first + self.code[1:])
        typed = self.code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
        self.assertEqual(protocol.normal_code(typed), self.code.replace("-", ""))

    def test_another_code_spends_a_try(self) -> None:
        terminal = self.registered()
        with self.refused("CODE_REFUSED") as said:
            self.link.BeginActivation(terminal.begin("0000-0000-0000"))
        self.assertEqual(said["tries_left"], "4")
        terminal.activate(self.link, self.code, self.card)

    def test_a_device_of_another_serial_is_refused(self) -> None:
        stranger, _ = self.registered(), self.registered()
        with self.refused("CODE_REFUSED"):
            self.link.BeginActivation(stranger.begin(self.code))

    def test_a_failed_test_transaction_is_told_by_its_check(self) -> None:
        terminal = self.registered()
        for step, _, answer in self.played(terminal):
            step.accept(answer)
            if step.call == "ReportStep":
                break
        mistyped = a_card(pan="4111111111111112")
        for card, amount, check in [(mistyped, 100, "CHECK_LUHN"),
                                    (self.card, 50_001, "CHECK_LIMITS"),
                                    (self.card._replace(expiry="0101"), 100, "CHECK_EXPIRY")]:
            terminal.tested(self.link.RunTestTransaction(terminal.test(card, amount)))
            failed = [name for name, passed in terminal.verdicts.items() if not passed]
            self.assertEqual((failed, terminal.tests_passed), ([check], 0))
        terminal.tested(self.link.RunTestTransaction(terminal.test(self.card)))
        self.assertEqual(terminal.tests_passed, 1)

    def test_a_spent_counter_serves_no_other_request(self) -> None:
        terminal = self.active()
        spent = terminal.counter_of(terminal.ask_parameters().ksn)
        request = terminal.ask_parameters()
        terminal.apply_parameters(self.link.GetParameters(request))
        again = payload.Parameters(known_version=1, nonce=bytes(32)).SerializeToString()
        used = terminal.counter_of(request.ksn)
        with self.refused("KSN_REPLAYED"):
            self.link.GetParameters(type(request)(**terminal.maced(again, "parameters", used)))
        # A counter that came to nobody is not spent: late transactions are taken.
        late = type(request)(**terminal.maced(again, "parameters", spent))
        terminal.apply_parameters(self.link.GetParameters(late))


class Certificates(Activation):
    """What holds besides for terminals with a device certificate."""

    def test_a_service_of_another_root_is_not_trusted(self) -> None:
        self.not_trusted(self.registered(root=self.service.authority("vendor")))

    def test_a_service_of_another_acquirer_is_not_trusted(self) -> None:
        self.not_trusted(self.registered(acquirer_id="OTHER-ACQUIRER"))

    def not_trusted(self, terminal: Terminal) -> None:
        answer = self.link.BeginActivation(terminal.begin(self.code))
        with self.assertRaises(Refused) as caught:
            terminal.begun(answer)
        self.assertEqual(caught.exception.fault, payload.FAULT_SERVICE_NOT_TRUSTED)


class MasterKeys(Activation):
    """What holds besides for terminals with a master key."""

    def test_the_status_says_that_there_is_no_forward_secrecy(self) -> None:
        self.registered()
        self.assertFalse(self.backend.terminal(self.name).forward_secrecy)

    def test_another_master_key_proves_nothing(self) -> None:
        terminal = self.registered()
        terminal.credential, _ = self.with_master_key(terminal.credential.serial)
        with self.refused("ACTIVATION_REFUSED"):
            self.link.BeginActivation(terminal.begin(self.code))

    def test_a_service_with_another_master_key_is_not_believed(self) -> None:
        terminal = self.registered()
        answer = self.link.BeginActivation(terminal.begin(self.code))
        terminal.credential, _ = self.with_master_key(terminal.credential.serial)
        with self.assertRaises(Refused) as caught:
            terminal.begun(answer)
        self.assertEqual(caught.exception.fault, payload.FAULT_AUTHENTICATION)


class AesTerminal(Certificates):
    """AES-128 DUKPT with a device certificate."""

    kind = AES


class TdesTerminal(Certificates):
    """Double-length TDES DUKPT with a device certificate."""

    kind = TDES


class AesMasterTerminal(MasterKeys):
    """AES-128 DUKPT under an AES-256 master key."""

    kind = MASTER_AES


class TdesMasterTerminal(MasterKeys):
    """Double-length TDES DUKPT under a double-length TDES master key, key blocks of version B."""

    kind = MASTER_TDES


class MixedMasterTerminal(MasterKeys):
    """Double-length TDES DUKPT under an AES-192 master key."""

    kind = MASTER_AES_TDES


# What holds for every kind is no test by itself.
del Activation, Certificates, MasterKeys, TerminalCase

if __name__ == "__main__":
    unittest.main()
