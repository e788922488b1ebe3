package policy

import (
	"fmt"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// onOlderAnswer returns a warning where an older answer named the digest that was chosen for a tag;
// empty where a newer one did, or a signature.
func (e *evaluation) onOlderAnswer(image string, c choice) string {
	s := e.under(c.root)
	if s == nil || e.image.Digest != "" {
		return ""
	}
	for i := range s.lookups {
		a := &s.lookups[i]
		if answer, ok := a.evidence.(trust.Answer); ok && a.older != nil {
			return line(image, part{text: fmt.Sprintf(
				"admitted for the digest that its registry named for the tag %s at %s (TrustRoot %q): "+
					"the registry could not be queried again: %s",
				quote(e.image.Tag, maxName), answer.Given().UTC().Format(time.RFC3339), s.root,
				clean(a.older.Error()))})
		}
	}
	return ""
}
