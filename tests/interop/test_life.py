"""A terminal's life in service: higher parameters, new keys, and profiles that ask for less."""

import dataclasses

import service
from answers import Refused
from fixture import AES, MASTER_AES, TDES, TerminalCase
from stubs import payload, terminals
from tamper import bits_flipped, with_other_payload, with_other_proof
from terminal import Terminal


class Life(TerminalCase):
    """What holds for every kind of terminal."""

    def update_parameters(self, terminal: Terminal) -> None:
        terminal.apply_parameters(self.link.GetParameters(terminal.ask_parameters()))

    def test_higher_limits_reach_a_terminal_in_service(self) -> None:
        profile = self.new_profile(test_transactions=1)
        terminal = self.active(profile)
        with self.assertRaises(ValueError):
            terminal.purchase(self.card, 15_000)
        version = self.backend.change_limits(profile, 15_000, 30_000)
        self.update_parameters(terminal)
        self.assertEqual(terminal.parameters.version, version)
        self.link.ReportStep(terminal.report_applied())
        self.assertEqual(self.backend.terminal(self.name).parameters_version, version)
        terminal.purchase(self.card, 15_000)

    def test_a_terminal_takes_no_older_parameters_and_none_that_differ(self) -> None:
        terminal = self.active()
        applied = terminal.parameters
        for known in (dataclasses.replace(applied, version=applied.version + 1),
                      dataclasses.replace(applied, single_limit_minor=1)):
            terminal.parameters = known
            with self.assertRaises(Refused) as caught:
                self.update_parameters(terminal)
            self.assertEqual(caught.exception.fault, payload.FAULT_PARAMETERS_ROLLED_BACK)
            self.assertEqual(terminal.parameters, known)

    def test_new_keys_replace_the_old_ones_which_serve_a_while(self) -> None:
        terminal = self.active()
        old, late = terminal.keys, terminal.purchase(self.card, 100)
        rekeying = self.backend.start_rekey(self.name)
        self.assertEqual(rekeying.state, terminals.TERMINAL_STATE_REKEYING)
        terminal.rekey(self.link)
        base = service.development_keys()[self.kind.base_key]
        self.assertNotEqual(terminal.keys.key_id, old.key_id)
        self.assertEqual(terminal.keys, self.kind.dukpt.from_base(base, terminal.keys.key_id))
        known = self.backend.terminal(self.name)
        self.assertEqual(known.state, terminals.TERMINAL_STATE_ACTIVE)
        self.assertEqual(known.initial_key_id, terminal.keys.key_id)
        new = terminal.purchase(self.card, 100)
        for ksn, standing in ((new.ksn, terminals.KEY_SET_STANDING_SERVING),
                              (late.ksn, terminals.KEY_SET_STANDING_GRACE)):
            found = self.backend.whose(ksn)
            self.assertEqual((found.terminal, found.key_set, found.served),
                             (self.name, standing, True))
        for purchase in (new, late):
            self.backend.verify_mac(purchase.ksn, purchase.message, purchase.mac,
                                    algorithm=self.kind.mac_algorithm)

    def test_a_profile_may_do_without_code_tests_and_enabling(self) -> None:
        profile = self.new_profile(no_code=True, automatic_enabling=True)
        terminal = self.registered(profile=profile, no_code=True)
        # The terminal can not know that no test is asked for; its first one is told.
        with self.refused("ACTIVATION_STATE") as said:
            terminal.activate(self.link, self.code, self.card)
        self.assertEqual(said["state"], "ACTIVE")
        purchase = terminal.purchase(self.card, 100)
        self.backend.verify_mac(purchase.ksn, purchase.message, purchase.mac,
                                algorithm=self.kind.mac_algorithm)


class AesUpdates(Life):
    """What holds besides for AES DUKPT, which has an update key."""

    def test_the_update_key_brings_new_keys(self) -> None:
        terminal = self.active()
        old, late = terminal.keys, terminal.purchase(self.card, 100)
        self.backend.start_rekey(self.name, update_key_allowed=True)
        for step in terminal.update_steps():
            request = step.ask()
            for wrong in (with_other_payload(request), with_other_proof(request)):
                with self.subTest(step.call), self.refused("ACTIVATION_REFUSED"):
                    getattr(self.link, step.call)(wrong)
            answer = getattr(self.link, step.call)(request)
            self.assertEqual(getattr(self.link, step.call)(request), answer)
            for wrong in bits_flipped(answer):
                with self.assertRaises(Refused, msg=step.call):
                    step.accept(wrong)
            step.accept(answer)
        base = service.development_keys()[self.kind.base_key]
        self.assertNotEqual(terminal.keys.key_id, old.key_id)
        self.assertEqual(terminal.keys, self.kind.dukpt.from_base(base, terminal.keys.key_id))
        for purchase in (terminal.purchase(self.card, 100), late):
            self.backend.verify_mac(purchase.ksn, purchase.message, purchase.mac,
                                    algorithm=self.kind.mac_algorithm)

    def test_no_update_comes_unless_the_backend_started_it(self) -> None:
        terminal = self.active()
        with self.refused("TERMINAL_ALREADY_ACTIVATED"):
            self.link.UpdateKeys(terminal.update())


class AesLife(AesUpdates):
    """AES-128 DUKPT."""

    kind = AES


class TdesLife(Life):
    """Double-length TDES DUKPT."""

    kind = TDES

    def test_there_is_no_update_key(self) -> None:
        terminal = self.active()
        self.backend.start_rekey(self.name, update_key_allowed=True)
        with self.refused("KSN_INVALID"):
            self.link.UpdateKeys(terminal.update())


class MasterKeyLife(AesUpdates):
    """AES-128 DUKPT under an AES master key."""

    kind = MASTER_AES


# What holds for every kind is no test by itself.
del AesUpdates, Life, TerminalCase
