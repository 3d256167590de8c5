"""The acquirer's side: registers terminals, has their transactions checked, reads refusals."""

import uuid
from typing import Any

import grpc
from google.protobuf import field_mask_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from service import Service
from stubs import (
    keys,
    keys_grpc,
    mac,
    mac_grpc,
    pin,
    pin_grpc,
    terminals,
    terminals_grpc,
    types,
)


def refusal(error: grpc.RpcError) -> error_details_pb2.ErrorInfo:
    """The stable reason of an error, with its metadata: it stands in the status details."""
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(details)
    info = error_details_pb2.ErrorInfo()
    if not any(detail.Unpack(info) for detail in status.details) or info.domain != "firstkey":
        raise AssertionError(f"no reason: {status}")
    return info


class Backend:
    """A payment backend on the service's channel."""

    def __init__(self, service: Service) -> None:
        self._keys = keys_grpc.KeyServiceStub(service.channel)
        self._terminals = terminals_grpc.TerminalServiceStub(service.channel)
        self._macs = mac_grpc.MacServiceStub(service.channel)
        self._pins = pin_grpc.PinServiceStub(service.channel)

    def export_initial_key(self, base_key: str, wrapping_key: str) -> Message:
        """A key block for a facility that loads terminals."""
        return self._keys.ExportInitialKey(keys.ExportInitialKeyRequest(
            request_id=str(uuid.uuid4()), base_derivation_key=base_key,
            wrapping_key=wrapping_key))

    def import_key(self, key_id: str, block: str, wrapping_key: str, **how: bool) -> str:
        """Brings a key in a key block; returns its name."""
        return self._keys.ImportKey(keys.ImportKeyRequest(
            request_id=str(uuid.uuid4()), key_id=key_id, key_block=block,
            wrapping_key=wrapping_key, **how)).key.name

    def rotate_key(self, name: str) -> Message:
        """The next version of a key, made by the service."""
        return self._keys.RotateKey(keys.RotateKeyRequest(
            request_id=str(uuid.uuid4()), name=name)).key

    def register(self, terminal_id: str, serial: str, profile: str, **credential: Any) -> str:
        """Registers a terminal that proves itself by this credential; returns its name."""
        request = terminals.CreateTerminalRequest(
            request_id=str(uuid.uuid4()), terminal_id=terminal_id, serial=serial,
            model="simulator", profile=profile,
            merchant=terminals.Merchant(merchant_id="INTEROP1", terminal_id="TERM0001",
                                        display_name="Café Interop"),
            merchant_standing=terminals.MERCHANT_STANDING_APPROVED,
            **credential)
        return self._terminals.CreateTerminal(request).terminal.name

    def issue_code(self, name: str) -> str:
        """The activation code that the merchant is told."""
        request = terminals.IssueActivationCodeRequest(request_id=str(uuid.uuid4()), name=name)
        return self._terminals.IssueActivationCode(request).activation_code

    def enable(self, name: str) -> Message:
        """Opens PIN and MAC calls for the terminal."""
        request = terminals.EnableTerminalRequest(request_id=str(uuid.uuid4()), name=name)
        return self._terminals.EnableTerminal(request).terminal

    def terminal(self, name: str) -> Message:
        """The terminal with its timeline."""
        return self._terminals.GetTerminal(terminals.GetTerminalRequest(name=name)).terminal

    def whose(self, ksn: bytes) -> Message:
        """Whose a key serial number is, and whether it serves."""
        return self._terminals.LookupKsn(terminals.LookupKsnRequest(ksn=ksn))

    def start_rekey(self, name: str, update_key_allowed: bool = False) -> Message:
        """Lets the terminal take new keys, under those that serve only if that is allowed."""
        request = terminals.StartRekeyRequest(request_id=str(uuid.uuid4()), name=name,
                                              cause="the keys have served long enough",
                                              update_key_allowed=update_key_allowed)
        return self._terminals.StartRekey(request).terminal

    def create_profile(self, profile_id: str, suite: str, base_key: str,
                       limits: tuple[int, int], **rules: Any) -> str:
        """A profile of its own for a test; returns its name. Limits: single and daily, cents."""
        profile = terminals.Profile(suite=f"SUITE_{suite}", base_derivation_key=base_key,
                                    limits=_euros(*limits), **rules)
        request = terminals.CreateProfileRequest(request_id=str(uuid.uuid4()),
                                                 profile_id=profile_id, profile=profile)
        return self._terminals.CreateProfile(request).profile.name

    def limits(self, profile: str) -> Message:
        """The limits of a profile's terminals."""
        return self._terminals.GetProfile(terminals.GetProfileRequest(name=profile)).profile.limits

    def change_limits(self, profile: str, single: int, daily: int) -> int:
        """Gives a profile other limits; returns the version of parameters that has them."""
        changed = terminals.Profile(name=profile, limits=_euros(single, daily))
        request = terminals.UpdateProfileRequest(
            request_id=str(uuid.uuid4()), profile=changed,
            update_mask=field_mask_pb2.FieldMask(paths=["limits"]))
        return self._terminals.UpdateProfile(request).profile.parameters_version

    def verify_mac(self, ksn: bytes, message: bytes, tag: bytes, **how: Any) -> None:
        """Has a terminal's MAC verified; one that does not verify is an error."""
        self._macs.VerifyMac(mac.VerifyMacRequest(
            key=_dukpt(ksn), direction=types.DIRECTION_REQUEST, message=message, mac=tag, **how))

    def respond(self, ksn: bytes, message: bytes, **how: Any) -> bytes:
        """The MAC of a message to the terminal, under the response key of its KSN."""
        return self._macs.GenerateMac(mac.GenerateMacRequest(
            key=_dukpt(ksn), direction=types.DIRECTION_RESPONSE, message=message, **how)).mac

    def translate(self, ksn: bytes, pin_block: bytes, pan: str, zone: str, **formats: int) -> bytes:
        """Has a terminal's PIN block re-enciphered to the zone key of another institution."""
        return self._pins.TranslatePin(pin.TranslatePinRequest(
            source=_dukpt(ksn), pin_block=pin_block, pan=pan,
            destination=types.WorkingKey(static_key=zone), **formats)).pin_block

    def translate_static(self, source: str, pin_block: bytes, pan: str, zone: str,
                         **formats: int) -> bytes:
        """Has a PIN block re-enciphered from one static key to another."""
        return self._pins.TranslatePin(pin.TranslatePinRequest(
            source=types.WorkingKey(static_key=source), pin_block=pin_block, pan=pan,
            destination=types.WorkingKey(static_key=zone), **formats)).pin_block

    def verify_and_translate(self, ksn: bytes, message: bytes, tag: bytes, pin_block: bytes,
                             pan: str, zone: str, **how: int) -> bytes:
        """Both of one message in one call; the MAC decides first."""
        return self._pins.VerifyMacAndTranslatePin(pin.VerifyMacAndTranslatePinRequest(
            mac_key=_dukpt(ksn), direction=types.DIRECTION_REQUEST, message=message, mac=tag,
            source=_dukpt(ksn), pin_block=pin_block, pan=pan,
            destination=types.WorkingKey(static_key=zone), **how)).pin_block


def _euros(single: int, daily: int) -> Message:
    return terminals.Limits(currency="EUR", single_amount_minor=single, daily_amount_minor=daily)


def _dukpt(ksn: bytes) -> Message:
    """The transaction key of a KSN; the service finds the base derivation key by it."""
    return types.WorkingKey(dukpt=types.DukptKey(ksn=ksn))
