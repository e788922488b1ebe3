package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/policy"
)

// Bounds of the texts, in bytes. Names of owners come from Pods, and references of images too.
const (
	maxName    = 253
	maxImage   = 320
	maxMessage = 1000
)

// message says of each image that does not meet the policy what is amiss, as many as the bound allows.
func message(f *compliance.Finding) string {
	if f.Verdict == policy.Admitted {
		return "every image that the policy covers meets it"
	}
	const reserve = len("; and 1000000 more images")
	var text string
	for i := range f.Images {
		part := cut(imageText(&f.Images[i]), maxMessage-reserve)
		if i > 0 {
			part = "; " + part
		}
		if len(text)+len(part) > maxMessage-reserve {
			return text + fmt.Sprintf("; and %d more images", len(f.Images)-i)
		}
		text += part
	}
	return cmp.Or(text, "the policy is not met")
}

func imageText(i *compliance.ImageFinding) string {
	text := fmt.Sprintf("image %q: ", cut(i.Image, maxImage))
	missing := cut(strings.Join(i.Missing, ", "), maxName)
	switch {
	case i.Verdict == policy.CouldNotCheck:
		return text + "could not be checked: " + cut(i.Reason, maxName)
	case missing != "":
		return text + "no signature by " + missing
	default:
		return text + cut(i.Reason, maxName)
	}
}

// properties are for filters: the mode of the policy, and where it is not met the reasons and the missing roles of all images.
func properties(f *compliance.Finding) map[string]string {
	var reasons, missing []string
	for i := range f.Images {
		reasons = append(reasons, f.Images[i].Reason)
		missing = append(missing, f.Images[i].Missing...)
	}
	d := map[string]string{"mode": string(cmp.Or(f.Mode, v1alpha1.ModeEnforce))}
	if len(reasons) > 0 {
		d["reasons"] = cut(strings.Join(distinct(reasons), ","), maxName)
	}
	if len(missing) > 0 {
		d["missingRoles"] = cut(strings.Join(distinct(missing), ","), maxName)
	}
	return d
}

func distinct(items []string) []string {
	slices.Sort(items)
	return slices.Compact(items)
}

// cut shortens s to at most limit bytes, at the border of a character, and shows that it did.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	end := limit - len("...")
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "..."
}
