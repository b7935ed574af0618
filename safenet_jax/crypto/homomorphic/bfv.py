"""BFV ciphertexts of two parties: the one importer of SEAL.

    client: SecretKey                            server: PublicKey

    pk1 from the server's seed                   pk1 from its own seed
    public_key: pk0          --------------->    PublicKey
    encrypt: seed, c0        --------------->    Context.load: c1 from the seed
      in NTT form                                combine: sums of products, + Enc(0)
    replies.unmask: alpha    <---------------    replies.mask: beta

A ciphertext is two polynomials c0 and c1. With the client's secret key s, c0 + c1 s is
the plaintext, scaled from its modulus t up to the ciphertext's modulus q, plus small
noise. NTT form holds polynomials such that products are taken element by element. alpha
and beta are the parties' shares of the result.

What the server sees, a seed and c0, is BFV under the client's key with a uniform
c1. What the client sees is argued in `replies`.

A public key is (pk0, pk1) with pk0 = -(pk1 s + e) for small noise e. The client sends pk0
alone. pk1 is what hides the weights from it, so that it must not choose pk1: both expand
it from a seed that the server draws before it hears of the client. To the server a key is
ring-LWE in the uniform pk1. Clients of one server have pk1 in common, and each its own s
and e, so that this holds for all of their keys together.

SEAL draws keys itself. It takes them from the system, anew in every call, so that this holds
after a fork too. Its bindings hold the interpreter lock: to compute in parallel takes
processes (`workers`).
"""

from collections.abc import Sequence
import dataclasses
import math
import threading

import numpy as np
import seal

from safenet_jax.crypto import messages
from safenet_jax.crypto.homomorphic import residues
from safenet_jax.crypto.randomness import Randomness


@dataclasses.dataclass(frozen=True)
class Parameters:
  """What a BFV scheme is made of.

  Attributes:
    degree: N, the coefficients of a polynomial.
    modulus_bits: the bits of each prime. The last is SEAL's special prime, which only SEAL's own
      keys have; q is the product of the others.
    plain_modulus: t, the modulus of plaintexts.
    dropped: how many low bits of c1 replies leave out (`replies`).
    seed: public, from the server: pk1 of every public key is expanded from it. The
      client must not be able to choose it.
  """

  degree: int
  modulus_bits: tuple[int, ...]
  plain_modulus: int
  dropped: int = 0
  seed: bytes = b''

  @property
  def cipher_bits(self) -> int:
    """Bits of q. SEAL takes a single prime for q and keys alike."""
    return sum(self.modulus_bits[:-1]) or self.modulus_bits[0]


def ring_parameters(bits: int = 56, seed: bytes = b'') -> Parameters:
  """Parameters for linear layers in Z_2^bits.

  What replies leave out makes an element wrong by one with probability 2^-11. Each choice
  leaves the kernel's norm 2^24 or more in q / t: `encrypted_convolution` says what that is for.
  """
  degree: int = 4096
  width = (bits + 29) // 2
  moduli: tuple[int, ...] = (width, width, 16)
  if bits <= 28:
    degree, moduli = 2048, (54,)
  elif bits <= 36:
    degree, moduli = 4096, (60, 16)
  dropped = Parameters(degree, moduli, 1 << bits).cipher_bits - bits - 15
  return Parameters(degree, moduli, 1 << bits, dropped, seed)


def slot_parameters(modulus: int, seed: bytes = b'') -> Parameters:
  """Parameters for products in F_p, for a prime p of at most 50 bits that is 1 mod 2^14.

  If noise makes one coefficient of a sum of products wrong, all of its N slots are. The
  probability of that is 2^-23 for three products and a 50-bit p, and less for others.

  ValueError for another modulus.
  """
  bits = modulus.bit_length()
  if bits > 50 or modulus % (1 << 14) != 1:
    raise ValueError(f'modulus {modulus}, want 1 mod 2^14 and at most 50 bits')
  width, dropped = (38, 36) if bits <= 35 else (42, 42) if bits <= 41 else (48, 48)
  return Parameters(8192, (width, width, width, 20), modulus, dropped, seed)


class Context:
  """What both parties compute from the parameters; holds no secret of either.

  Polynomials are uint64 residues [..., moduli, degree]. They become SEAL's objects, and
  come from them, by way of SEAL's serialised form, a header and words. The headers are
  always our own, never a peer's.
  """

  def __init__(self, parameters: Parameters):
    self.parameters = parameters
    # Threads that reply at once would not be faster, as SEAL holds the interpreter lock. But
    # each would hold its ciphertexts, and SEAL's pool keeps all memory that it ever had.
    self.reply_lock = threading.Lock()
    self.degree, t = parameters.degree, parameters.plain_modulus
    settings = seal.EncryptionParameters(seal.scheme_type.bfv)
    settings.set_poly_modulus_degree(self.degree)
    settings.set_coeff_modulus(seal.CoeffModulus.Create(self.degree, list(parameters.modulus_bits)))
    settings.set_plain_modulus(t)
    self.seal = seal.SEALContext(settings, True, seal.sec_level_type.tc128)
    if not self.seal.parameters_set():
      raise ValueError(f'{parameters}: {self.seal.parameter_error_message()}')
    self.evaluator = seal.Evaluator(self.seal)
    # Keys of SEAL have a residue for the special prime too, which nothing here needs.
    self.key_moduli = len(self.seal.key_context_data().parms().coeff_modulus())
    self.moduli = _moduli(self.seal.first_context_data())
    self.modulus = math.prod(int(q) for q in self.moduli)
    # Every kind of parameters has a pk1 of its own, whatever the seed is.
    expansion = residues.Expansion(messages.identifier(b'pk1', repr(parameters).encode()))
    self.second_half = residues.uniform(expansion, self.moduli, (self.degree,))
    self._slots: seal.BatchEncoder | None = None
    if self.seal.first_context_data().qualifiers().using_batching:
      self._slots = seal.BatchEncoder(self.seal)
    # This key deciphers nothing. With c1 = 0, a decryptor under any key rounds c0 t / q.
    keys = seal.KeyGenerator(self.seal)
    self._rounding = seal.Decryptor(self.seal, keys.secret_key())
    word = 8 * self.degree
    self._plain_header = seal.Plaintext(self.degree).to_bytes()[:-word]
    self._headers: dict[tuple[int, bool], bytes] = {}
    self._sample = seal.Encryptor(self.seal, keys.secret_key()).encrypt_symmetric(
      seal.Plaintext('1')
    )

  def plaintext(self, coefficients: np.ndarray) -> seal.Plaintext:
    """[degree] uint64 below t as a plaintext."""
    plain = seal.Plaintext()
    plain.load_bytes(self.seal, self._plain_header + coefficients.tobytes())
    return plain

  def _coefficients(self, plain: seal.Plaintext) -> np.ndarray:
    """The inverse of `plaintext`; SEAL leaves out high zeros."""
    count, data = plain.coeff_count(), plain.to_bytes()
    coefficients = np.zeros(self.degree, np.uint64)
    coefficients[:count] = np.frombuffer(data, np.uint64, offset=len(data) - 8 * count)
    return coefficients

  def to_coefficients(self, slots: np.ndarray) -> np.ndarray:
    """Slots as the coefficients of a polynomial, both uint64 [degree] below t.

    The product of two such polynomials has the products of their slots, one by one.

    Raises:
      ValueError: t is not a prime of `slot_parameters`.
    """
    return self._coefficients(self._encoder().encode(slots))

  def to_slots(self, coefficients: np.ndarray) -> np.ndarray:
    """The inverse of `to_coefficients`."""
    return self._encoder().decode_uint64(self.plaintext(coefficients))

  def _encoder(self) -> seal.BatchEncoder:
    if self._slots is None:
      raise ValueError(f'{self.parameters}: want a prime t = 1 mod 2 N for slots')
    return self._slots

  def multiplier(self, coefficients: np.ndarray) -> seal.Plaintext:
    """`plaintext` in NTT form, to multiply ciphertexts by."""
    plain = self.plaintext(coefficients)
    self.evaluator.transform_to_ntt_inplace(plain, self.seal.first_parms_id())
    return plain

  def ciphertext(self, polynomials: np.ndarray, *, ntt: bool) -> seal.Ciphertext:
    """Polynomials c0, c1, ..., [size, moduli, degree], as a ciphertext.

    Its size is 2; a square of size 2 has 3, and a square of that 5. ValueError for others.
    """
    encrypted = seal.Ciphertext()
    encrypted.load_bytes(self.seal, self._header(len(polynomials), ntt) + polynomials.tobytes())
    return encrypted

  def _header(self, size: int, ntt: bool) -> bytes:
    if (size, ntt) not in self._headers:
      sample = self._sample
      while sample.size() < size:
        sample = self.evaluator.square(sample)
      if sample.size() != size:
        raise ValueError(f'a ciphertext of {size} polynomials, want 2, 3 or 5')
      if ntt:
        sample = self.evaluator.transform_to_ntt(sample)
      words = size * self.moduli.size * self.degree
      self._headers[size, ntt] = sample.to_string()[: -8 * words]
    return self._headers[size, ntt]

  def polynomials(self, encrypted: seal.Ciphertext) -> np.ndarray:
    """The inverse of `ciphertext`, read-only."""
    data = encrypted.to_string()
    shape = encrypted.size(), self.moduli.size, self.degree
    start = len(data) - 8 * math.prod(shape)
    return np.frombuffer(data, np.uint64, offset=start).reshape(shape)

  def public_key_size(self) -> int:
    """Bytes of `SecretKey.public_key`."""
    return residues.size(self.moduli, self.degree)

  def decrypt(self, decryptor: seal.Decryptor, encrypted: seal.Ciphertext) -> np.ndarray:
    """The plaintext of a ciphertext, uint64 [degree] below t."""
    plain = seal.Plaintext()
    decryptor.decrypt(encrypted, plain)
    return self._coefficients(plain)

  def round(self, values: np.ndarray) -> np.ndarray:
    """round(v t / q) mod t of each column v of values [moduli, n]: [n]."""
    t = self.parameters.plain_modulus
    if t & (t - 1) == 0:
      return residues.nearest(values, self.moduli, t)
    _, count = values.shape
    blocks = -(-count // self.degree)
    padded = np.pad(values, ((0, 0), (0, blocks * self.degree - count)))
    rounded = [
      self.decrypt(self._rounding, self.ciphertext(np.stack([v, np.zeros_like(v)]), ntt=False))
      for v in np.split(padded, blocks, axis=1)
    ]
    return np.concatenate(rounded)[:count]

  def add_scaled(self, values: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """values + round(q m / t), residues [moduli, degree], for a plaintext m, uint64 [degree]."""
    # SEAL adds to first halves only. It would refuse zeros as second ones.
    encrypted = self.ciphertext(np.stack([values, np.ones_like(values)]), ntt=False)
    self.evaluator.add_plain_inplace(encrypted, self.plaintext(plain))
    return self.polynomials(encrypted)[0]

  def to_ntt(self, polynomials: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Residues [moduli, degree] in NTT form; SEAL takes them two at a time."""
    found: list[np.ndarray] = []
    for pair in _pairs(polynomials):
      encrypted = self.ciphertext(pair, ntt=False)
      self.evaluator.transform_to_ntt_inplace(encrypted)
      found += list(self.polynomials(encrypted))
    return found[: len(polynomials)]

  def upload_size(self, count: int) -> int:
    """Bytes of `SecretKey.encrypt` of `count` plaintexts."""
    return residues.SEED_BYTES + count * residues.size(self.moduli, self.degree)

  def load(self, upload: bytes, count: int) -> list[seal.Ciphertext]:
    """A client's `count` ciphertexts, in NTT form.

    Raises:
      ValueError: the length is wrong or a residue is not below its modulus.
    """
    if len(upload) != self.upload_size(count):
      raise ValueError(f'upload of {len(upload)} bytes, want {self.upload_size(count)}')
    stream = residues.Expansion(upload[: residues.SEED_BYTES])
    size = residues.size(self.moduli, self.degree)
    encrypted = []
    for start in range(residues.SEED_BYTES, len(upload), size):
      first = residues.unpack(upload[start : start + size], self.moduli, (self.degree,))
      second = residues.uniform(stream, self.moduli, (self.degree,))
      encrypted.append(self.ciphertext(np.stack([first, second]), ntt=True))
    return encrypted


def _pairs(polynomials: Sequence[np.ndarray]) -> list[np.ndarray]:
  """Polynomials [moduli, degree] as [2, moduli, degree] each; an odd one is there twice."""
  last = len(polynomials) - 1
  return [
    np.stack([polynomials[k], polynomials[min(k + 1, last)]]) for k in range(0, len(polynomials), 2)
  ]


def _moduli(data: seal.ContextData) -> np.ndarray:
  return np.array([m.value() for m in data.parms().coeff_modulus()], np.uint64)


class SecretKey:
  """The client's side of BFV: a fresh key."""

  def __init__(self, context: Context):
    self.context = context
    keys = seal.KeyGenerator(context.seal)
    shape = context.key_moduli, context.degree
    words, used = shape[0] * shape[1], context.moduli.size
    data = keys.secret_key().to_string()[-8 * words :]
    secret = np.frombuffer(data, np.uint64).reshape(shape)[:used]
    data = keys.create_public_key().to_string()[-16 * words :]
    drawn = np.frombuffer(data, np.uint64).reshape(2, *shape)[:, :used]
    self._public = _with_second_half(drawn, secret, context)
    self._decryptor = seal.Decryptor(context.seal, keys.secret_key())
    # The key in NTT form as a plaintext, without the special prime's part.
    sample = context.multiplier(np.ones(context.degree, np.uint64)).to_bytes()
    first = secret.tobytes()
    self._secret = seal.Plaintext()
    self._secret.load_bytes(context.seal, sample[: -len(first)] + first)
    self.fingerprint = messages.identifier(repr(context.parameters).encode(), self.public_key())

  def public_key(self) -> bytes:
    """pk0, which the server needs for `PublicKey`; pk1 is the context's."""
    return residues.pack(self._public, self.context.moduli)

  def encrypt(self, coefficients: np.ndarray, randomness: Randomness) -> bytes:
    """Plaintexts [n, degree] as one blob: a seed for every c1, and every c0.

    For a plaintext m and the secret key s, c1 = a is expanded from the seed, and
    c0 = e + round(q m / t) - a s. The bindings have no encryption with a seed. So this
    function draws a and the noise e, and SEAL scales, transforms and multiplies. e has
    SEAL's own distribution: binomial, 21 coins a side, deviation 3.24.
    """
    context, evaluator = self.context, self.context.evaluator
    seed = randomness.bytes(residues.SEED_BYTES)
    stream = residues.Expansion(seed)
    message = [seed]
    for plain in coefficients:
      error = residues.from_signed(residues.binomial(randomness, context.degree), context.moduli)
      # Only the first halves are used. SEAL would refuse zeros as second ones, because
      # such a ciphertext hides nothing.
      encrypted = context.ciphertext(np.stack([error, error]), ntt=False)
      evaluator.add_plain_inplace(encrypted, context.plaintext(plain))
      evaluator.transform_to_ntt_inplace(encrypted)
      uniform = residues.uniform(stream, context.moduli, (context.degree,))
      product = context.ciphertext(np.stack([uniform, uniform]), ntt=True)
      evaluator.multiply_plain_inplace(product, self._secret)
      evaluator.sub_inplace(encrypted, product)
      message.append(residues.pack(context.polynomials(encrypted)[0], context.moduli))
    return b''.join(message)

  def multiply(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """a s in coefficient form, for each a in NTT form; residues [moduli, degree]."""
    found: list[np.ndarray] = []
    for pair in _pairs(values):
      product = self.context.ciphertext(pair, ntt=True)
      self.context.evaluator.multiply_plain_inplace(product, self._secret)
      self.context.evaluator.transform_from_ntt_inplace(product)
      found += list(self.context.polynomials(product))
    return found[: len(values)]

  def decrypt(self, polynomials: np.ndarray) -> np.ndarray:
    """The plaintext, uint64 [degree] below t, of a ciphertext [size, moduli, degree]."""
    encrypted = self.context.ciphertext(polynomials, ntt=False)
    return self.context.decrypt(self._decryptor, encrypted)

  def noise_budget(self, polynomials: np.ndarray) -> int:
    """Bits by which the noise of a ciphertext [size, moduli, degree] may still grow."""
    encrypted = self.context.ciphertext(polynomials, ntt=False)
    return self._decryptor.invariant_noise_budget(encrypted)


def _with_second_half(drawn: np.ndarray, secret: np.ndarray, context: Context) -> np.ndarray:
  """pk0 for the context's pk1: the bindings cannot make a key for a given one.

  SEAL's key is (k0, k1) with k0 = -(k1 s + e), all in NTT form. So k0 + (k1 - pk1) s is
  -(pk1 s + e) with SEAL's noise e, which nothing else is made with: k0 is sent to nobody.

  Args:
    drawn: k0 and k1, [2, moduli, degree].
    secret: s, [moduli, degree].
    context: has pk1.

  Returns:
    [moduli, degree].
  """
  # Products of two residues take up to 120 bits: integers of Python.
  moduli = context.moduli.astype(object)[:, None]
  first, second = drawn.astype(object)
  change = (second - context.second_half.astype(object)) * secret.astype(object)
  return ((first + change) % moduli).astype(np.uint64)


class PublicKey:
  """The server's side: the client's public key and nothing that decrypts.

  The client chooses pk0 as it likes. It adds to c0 of a reply alone, all of which is
  masked (`replies`).

  Raises:
    ValueError: the key's length is wrong, or a residue is not below its modulus.
  """

  def __init__(self, context: Context, key: bytes):
    self.context = context
    first = residues.unpack(key, context.moduli, (context.degree,))
    self._key = context.ciphertext(np.stack([first, context.second_half]), ntt=True)
    self.fingerprint = messages.identifier(repr(context.parameters).encode(), key)

  def fresh_zero(self, randomness: Randomness) -> seal.Ciphertext:
    """Enc(0) in coefficient form, to be added to one reply and never used again.

    It is (pk0 u + e0, pk1 u + e1) for u with uniform coefficients -1, 0 and 1, and noise e0
    and e1 as in `SecretKey.encrypt`. SEAL's own encryption of zero does this modulo q times the
    special prime, and divides by that. Here it is done modulo q at once, in half of the time, and
    with more noise: its deviation is that of one encryption times sqrt(1 + 4 N / 3), 74 for
    N = 4096. That is little beside a product's.
    """
    context, evaluator = self.context, self.context.evaluator
    minus = np.uint64(context.parameters.plain_modulus - 1)
    u = randomness.residues(3, context.degree)
    product = evaluator.multiply_plain(self._key, context.multiplier(np.where(u == 2, minus, u)))
    evaluator.transform_from_ntt_inplace(product)
    noise = [
      residues.from_signed(residues.binomial(randomness, context.degree), context.moduli)
      for _ in range(2)
    ]
    evaluator.add_inplace(product, context.ciphertext(np.stack(noise), ntt=False))
    return product

  def combine(
    self,
    ciphertexts: Sequence[seal.Ciphertext],
    multipliers: Sequence[Sequence[seal.Plaintext]],
    randomness: Randomness,
    offset: seal.Plaintext | None = None,
  ) -> list[seal.Ciphertext]:
    """Sums of products, each with an Enc(0) of its own, in coefficient form.

    Args:
      ciphertexts: [inputs] in NTT form.
      multipliers: [inputs][outputs].
      randomness: of each Enc(0).
      offset: a plaintext that was added to every multiplier. What it adds to the sums is
        subtracted again.
    """
    evaluator = self.context.evaluator
    totals: list[seal.Ciphertext] = []
    # The inner loop is over outputs, so that an input is in the cache (10 % faster).
    for encrypted, row in zip(ciphertexts, multipliers):
      for k, multiplier in enumerate(row):
        product = evaluator.multiply_plain(encrypted, multiplier)
        if k == len(totals):
          totals.append(product)
        else:
          evaluator.add_inplace(totals[k], product)
    if offset is not None:
      excess = evaluator.multiply_plain(evaluator.add_many(list(ciphertexts)), offset)
      evaluator.transform_from_ntt_inplace(excess)
    for total in totals:
      evaluator.transform_from_ntt_inplace(total)
      # Never the same Enc(0) twice: it would cancel in the difference of two replies.
      evaluator.add_inplace(total, self.fresh_zero(randomness))
      if offset is not None:
        evaluator.sub_inplace(total, excess)
    return totals
