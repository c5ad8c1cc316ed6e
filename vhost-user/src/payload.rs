//! The structures in the payloads of messages.

/// The maximum number of memory regions in one message. It is also the maximum number of
/// descriptors that come with one message.
pub const MAX_REGIONS: usize = 32;

/// A payload whose length or contents do not fit its request.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("a payload of {0} bytes does not fit the request")]
pub struct PayloadError(
    /// The length of the payload in bytes.
    pub usize,
);

/// A number that belongs to a vring. It is the payload of SET_VRING_NUM, SET_VRING_BASE,
/// GET_VRING_BASE and SET_VRING_ENABLE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringState {
    /// The index of the vring.
    pub index: u32,
    /// The number. Its meaning depends on the request.
    pub num: u32,
}

/// The addresses of a vring's parts in the virtual address space of the front-end process. They are
/// the payload of SET_VRING_ADDR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VringAddr {
    /// The index of the vring.
    pub index: u32,
    /// Flags. If bit 0 is set, writes to the used ring are logged.
    pub flags: u32,
    /// The address of the descriptor table or descriptor ring.
    pub desc: u64,
    /// The address of the used ring or device area.
    pub used: u64,
    /// The address of the available ring or driver area.
    pub avail: u64,
    /// The guest-physical address of the used ring. Writes to the ring are logged under this
    /// address.
    pub log: u64,
}

/// An eventfd for a vring. It is the payload of SET_VRING_KICK, SET_VRING_CALL and SET_VRING_ERR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringFd<F> {
    /// The index of the vring.
    pub index: u8,
    /// The eventfd. `None` in SET_VRING_KICK means that the back-end polls the vring. `None` in the
    /// other messages means that the back-end sends no signal.
    pub fd: Option<F>,
}

impl<F> VringFd<F> {
    /// The bit of the payload that is set if no descriptor comes with the message.
    const NO_FD: u64 = 0x100;

    pub(crate) fn new(payload: u64, fds: Vec<F>) -> Self {
        Self {
            index: payload as u8,
            fd: fds.into_iter().next(),
        }
    }

    pub(crate) fn number(&self) -> u64 {
        u64::from(self.index) | if self.fd.is_none() { Self::NO_FD } else { 0 }
    }
}

/// An access to the configuration space. It is the payload of GET_CONFIG and SET_CONFIG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigAccess {
    /// The offset of the first byte in the configuration space.
    pub offset: u32,
    /// The number of bytes to read or write.
    pub size: u32,
    /// The kind of access, which is 0 except during migration.
    pub flags: u32,
    /// The bytes to write, or the bytes that were read. In a GET_CONFIG request, these bytes have
    /// no meaning.
    pub data: Vec<u8>,
}

impl ConfigAccess {
    /// A read of `size` bytes at `offset`.
    pub fn read(offset: u32, size: u32) -> Self {
        Self {
            offset,
            size,
            flags: 0,
            data: vec![0; size as usize],
        }
    }

    /// A write of `data` at `offset`.
    pub fn write(offset: u32, data: &[u8]) -> Self {
        Self {
            offset,
            size: data.len() as u32,
            flags: 0,
            data: data.to_vec(),
        }
    }

    /// Decodes a payload.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] when the payload is shorter than 12 bytes.
    pub fn decode(payload: &[u8]) -> Result<Self, PayloadError> {
        let mut fields = Fields::new(payload);
        Ok(Self {
            offset: fields.u32()?,
            size: fields.u32()?,
            flags: fields.u32()?,
            data: fields.rest().to_vec(),
        })
    }

    /// The payload as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let header = [self.offset, self.size, self.flags].map(u32::to_le_bytes);
        [&header.concat(), self.data.as_slice()].concat()
    }
}

impl VringState {
    /// Decodes a payload.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] when the payload does not have exactly 8 bytes.
    pub fn decode(payload: &[u8]) -> Result<Self, PayloadError> {
        let mut fields = Fields::new(payload);
        let state = Self {
            index: fields.u32()?,
            num: fields.u32()?,
        };
        fields.end().map(|()| state)
    }

    /// The payload as bytes.
    pub fn encode(&self) -> Vec<u8> {
        [self.index, self.num].map(u32::to_le_bytes).concat()
    }
}

impl VringAddr {
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, PayloadError> {
        let mut fields = Fields::new(payload);
        let addr = Self {
            index: fields.u32()?,
            flags: fields.u32()?,
            desc: fields.u64()?,
            used: fields.u64()?,
            avail: fields.u64()?,
            log: fields.u64()?,
        };
        fields.end().map(|()| addr)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let state = [self.index, self.flags].map(u32::to_le_bytes).concat();
        let addresses = [self.desc, self.used, self.avail, self.log].map(u64::to_le_bytes);
        [state, addresses.concat()].concat()
    }
}

/// Reads the fields of a payload, one after the other.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    error: PayloadError,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self {
            rest: payload,
            error: PayloadError(payload.len()),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], PayloadError> {
        let (field, rest) = self.rest.split_first_chunk().ok_or(self.error)?;
        self.rest = rest;
        Ok(*field)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, PayloadError> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, PayloadError> {
        self.take().map(u64::from_le_bytes)
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn end(self) -> Result<(), PayloadError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(self.error)
    }
}
