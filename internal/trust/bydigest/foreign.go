package bydigest

// Anyone who may push can add signatures to a signed image, and copy it into many repositories. So
// of what does not count, and of copies of what does, a format keeps little beside the rest.

// MaxForeign bounds the signatures of one kind on a digest that are kept though they prove nothing,
// in bytes: enough of common ones that an edit that lists their signers needs no network.
const MaxForeign = 32 << 10

// Foreign counts the signatures of one kind that are kept though they prove nothing. The zero value
// is ready for use.
type Foreign struct{ bytes int64 }

// Keep reports whether one more of some bytes is kept. Once one is not, none after it is: so those
// that are kept are the same again at the next look.
func (f *Foreign) Keep(size int64) bool {
	f.bytes += size
	return f.bytes <= MaxForeign
}
