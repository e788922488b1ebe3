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

// Maximum lengths of texts, in bytes. Names of owners and image references come from Pods, whose
// authors are not trusted.
const (
	maxName    = 253
	maxImage   = 320
	maxMessage = 1000
)

// message describes the fault of each image that does not meet the policy. It describes as many as
// fit into maxMessage bytes.
func message(f *compliance.Finding) string {
	if f.Verdict == policy.Admitted {
		return "every image that the policy covers meets it"
	}
	const reserve = len("; and 1000000 more images")
	var all string
	for i := range f.Images {
		part := text.Cut(imageText(&f.Images[i]), maxMessage-reserve)
		if i > 0 {
			part = "; " + part
		}
		if len(all)+len(part) > maxMessage-reserve {
			return all + fmt.Sprintf("; and %d more images", len(f.Images)-i)
		}
		all += part
	}
	return cmp.Or(all, "the policy is not met")
}

func imageText(i *compliance.ImageFinding) string {
	prefix := fmt.Sprintf("image %q: ", text.Cut(i.Image, maxImage))
	missing := text.Cut(strings.Join(i.Missing, ", "), maxName)
	switch {
	case i.Verdict == policy.CouldNotCheck:
		return prefix + "could not be checked: " + text.Cut(i.Reason, maxName)
	case missing != "":
		return prefix + "no signature by " + missing
	default:
		return prefix + text.Cut(i.Reason, maxName)
	}
}

// properties returns values that users can filter results by: the mode of the policy, and the
// reasons and missing roles of all images that do not meet it.
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
