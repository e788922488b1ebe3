package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/text"
)

// Bounds of the texts, in bytes. Names of owners come from Pods, and references of images too.
const (
	maxName    = 253
	maxImage   = 320
	maxMessage = 1000
)

// message says of each image that does not meet the policy what is amiss, as many as the bound
// allows.
func message(f *compliance.Finding) string {
	if f.Verdict == policy.Admitted {
		return "every image that the policy covers meets it"
	}
	const reserve = len("; and 1000000 more images")
	var said string
	for i := range f.Images {
		part := text.Cut(imageText(&f.Images[i]), maxMessage-reserve)
		if i > 0 {
			part = "; " + part
		}
		if len(said)+len(part) > maxMessage-reserve {
			return said + fmt.Sprintf("; and %d more images", len(f.Images)-i)
		}
		said += part
	}
	return cmp.Or(said, "the policy is not met")
}

func imageText(i *compliance.ImageFinding) string {
	said := fmt.Sprintf("image %q: ", text.Cut(i.Image, maxImage))
	missing := text.Cut(strings.Join(i.Missing, ", "), maxName)
	switch {
	case i.Verdict == policy.CouldNotCheck:
		return said + "could not be checked: " + text.Cut(i.Reason, maxName)
	case missing != "":
		return said + "no signature by " + missing
	default:
		return said + text.Cut(i.Reason, maxName)
	}
}

// properties are for filters: the mode of the policy, and where it is not met the reasons and the
// missing roles of all images.
func properties(f *compliance.Finding) map[string]string {
	var reasons, missing []string
	for i := range f.Images {
		reasons = append(reasons, f.Images[i].Reason)
		missing = append(missing, f.Images[i].Missing...)
	}
	d := map[string]string{"mode": string(cmp.Or(f.Mode, v1alpha1.ModeEnforce))}
	if len(reasons) > 0 {
		d["reasons"] = text.Cut(strings.Join(distinct(reasons), ","), maxName)
	}
	if len(missing) > 0 {
		d["missingRoles"] = text.Cut(strings.Join(distinct(missing), ","), maxName)
	}
	return d
}

func distinct(items []string) []string {
	slices.Sort(items)
	return slices.Compact(items)
}
