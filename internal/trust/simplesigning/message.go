package simplesigning

import (
	"bytes"
	"compress/bzip2"
	"compress/flate"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// The packets of a signed message (RFC 9580, sections 5 and 10.3).
const (
	tagSignature  = 2
	tagOnePass    = 4
	tagCompressed = 8
	tagLiteral    = 11
	// maxPackets bounds the packets that are read of a message, which has three.
	maxPackets = 16
	// maxDecompressed bounds a message once it is decompressed.
	maxDecompressed = maxSignature
)

// message is an OpenPGP message: one document with one signature.
type message struct {
	content   []byte
	signature *packet.Signature
}

// readMessage reads a message: a one-pass signature, a literal packet and its signature, compressed
// or not, and nothing else. Where several keys have signed one message, none counts: the format
// knows no such signature. The error says why it is none, in the rest of a sentence that begins
// with the signature.
func readMessage(data []byte) (*message, error) {
	switch {
	case len(data) == 0:
		return nil, errors.New("is empty, or cannot be decoded")
	case bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN PGP")):
		return nil, errors.New("is text, armored or clear-signed, and not the binary message of 'gpg --sign'")
	}
	packets, err := split(data)
	if err != nil {
		return nil, err
	}
	if packets[0].Tag == tagCompressed && len(packets) == 1 {
		if data, err = decompress(packets[0].Contents); err != nil {
			return nil, err
		}
		if packets, err = split(data); err != nil {
			return nil, err
		}
	}
	if err := checkOrder(packets); err != nil {
		return nil, err
	}
	onePass, ok1 := parsed[*packet.OnePassSignature](packets[0])
	signature, ok2 := parsed[*packet.Signature](packets[2])
	content, ok3 := literal(packets[1].Contents)
	switch {
	case !ok1 || !ok2 || !ok3:
		return nil, errors.New("has a packet that cannot be read, or of an unknown version")
	case !onePass.IsLast:
		return nil, errors.New("has nested signatures")
	case signature.SigType != packet.SigTypeBinary || onePass.SigType != packet.SigTypeBinary:
		return nil, errors.New("has a signature of another type than that of a binary document")
	case onePass.Hash != signature.Hash || onePass.PubKeyAlgo != signature.PubKeyAlgo ||
		signature.IssuerKeyId != nil && onePass.KeyId != *signature.IssuerKeyId:
		return nil, errors.New("announces another signature than it has")
	}
	return &message{content: content, signature: signature}, nil
}

// split reads the packets of a message.
func split(data []byte) ([]*packet.OpaquePacket, error) {
	var all []*packet.OpaquePacket
	for r := packet.NewOpaqueReader(bytes.NewReader(data)); ; {
		p, err := r.Next()
		switch {
		case errors.Is(err, io.EOF) && len(all) > 0:
			return all, nil
		case err != nil:
			return nil, errors.New("is no OpenPGP message, or a part of it is missing")
		case len(all) == maxPackets:
			return nil, fmt.Errorf("has more than %d packets, and a signed message has three", maxPackets)
		}
		all = append(all, p)
	}
}

// checkOrder refuses all messages but a one-pass signature, a literal packet and its signature.
func checkOrder(packets []*packet.OpaquePacket) error {
	var tags []uint8
	count := map[uint8]int{}
	for _, p := range packets {
		tags = append(tags, p.Tag)
		count[p.Tag]++
	}
	switch {
	case slices.Equal(tags, []uint8{tagOnePass, tagLiteral, tagSignature}):
		return nil
	case count[tagCompressed] > 0:
		return errors.New("has a compressed packet beside or within another packet")
	case count[tagLiteral] > 1:
		return errors.New("has several literal packets")
	case count[tagLiteral] == 0 && count[tagSignature] > 0:
		return errors.New("is a detached signature, without the document that is signed")
	case count[tagSignature] > 1 || count[tagOnePass] > 1:
		return errors.New("is signed by several keys at once, and none counts: make one signature with each key")
	case count[tagSignature] == 0:
		return errors.New("is an OpenPGP message without a signature")
	}
	return errors.New("has other packets than a one-pass signature, a literal packet and its signature")
}

// decompress returns the contents of a compressed packet, bounded while it decompresses.
func decompress(contents []byte) ([]byte, error) {
	if len(contents) == 0 {
		return nil, errors.New("has an empty compressed packet")
	}
	var r io.Reader = bytes.NewReader(contents[1:])
	var err error
	switch contents[0] { // RFC 9580, section 9.4
	case 0:
	case 1:
		r = flate.NewReader(r)
	case 2:
		r, err = zlib.NewReader(r)
	case algorithmBzip2:
		r = bzip2.NewReader(r)
	default:
		err = errors.New("unknown")
	}
	if err != nil {
		return nil, errors.New("has a compressed packet that cannot be read")
	}
	data, err := io.ReadAll(io.LimitReader(r, maxDecompressed+1))
	switch {
	case len(data) > maxDecompressed:
		return nil, fmt.Errorf("has more than %d KiB when it is decompressed, which no signature has",
			maxDecompressed>>10)
	case err != nil:
		return nil, errors.New("has a compressed packet that cannot be read")
	}
	return data, nil
}

const algorithmBzip2 = 3

// literal returns the document of a literal packet (RFC 9580, section 5.9): after a format, the
// length of a file name, the name and a date.
func literal(contents []byte) ([]byte, bool) {
	const date = 4
	if len(contents) < 2 {
		return nil, false
	}
	start := 2 + int(contents[1]) + date
	if len(contents) < start {
		return nil, false
	}
	return contents[start:], true
}

// parsed decodes a packet of a type.
func parsed[T packet.Packet](p *packet.OpaquePacket) (T, bool) {
	read, err := p.Parse()
	got, ok := read.(T)
	return got, ok && err == nil
}
