package check

import (
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/countersign-dev/countersign/internal/olm"
)

// identity checks name and versions.
func (b *bundle) identity() {
	csv, s := b.csv, b.csv.Spec
	if csv.APIVersion != olm.APIVersionCSV {
		b.add("csv", "apiVersion is %q, not %q", csv.APIVersion, olm.APIVersionCSV)
	}
	v, err := version.ParseSemantic(s.Version)
	if err != nil || strings.HasPrefix(s.Version, "v") {
		b.add("csv", "spec.version %q is not a semantic version without a leading v", s.Version)
		return
	}
	if csv.Metadata.Name != olm.CSVName(s.Version) {
		b.add("csv", "the name %q is not %q", csv.Metadata.Name, olm.CSVName(s.Version))
	}
	// The name is the value of labels.
	if problems := append(validation.IsDNS1123Subdomain(csv.Metadata.Name),
		validation.IsValidLabelValue(csv.Metadata.Name)...); len(problems) > 0 {
		b.add("csv", "the name %q: %s", csv.Metadata.Name, strings.Join(problems, "; "))
	}
	skip := csv.Metadata.Annotations[olm.AnnotationSkipRange]
	if (s.Replaces == "") != (skip == "") {
		b.add("csv", "replaces is %q and %s is %q: both or none", s.Replaces, olm.AnnotationSkipRange, skip)
	}
	if s.Replaces != "" {
		from, err := version.ParseSemantic(strings.TrimPrefix(s.Replaces, olm.Package+".v"))
		if err != nil || s.Replaces != olm.CSVName(from.String()) || !from.LessThan(v) {
			b.add("csv", "replaces %q, which is not an earlier version of %s", s.Replaces, olm.Package)
		} else {
			b.skipRange(skip, from, v)
		}
	}
}

// skipRange checks that one upgrade skips no minor version. The range begins with the minor version
// of from, which must be the one before that of to.
func (b *bundle) skipRange(skip string, from, to *version.Version) {
	if want := fmt.Sprintf(">=%d.%d.0 <%s", from.Major(), from.Minor(), b.csv.Spec.Version); skip != want {
		b.add("csv", "%s is %q, not %q", olm.AnnotationSkipRange, skip, want)
	}
	next := from.Major() == to.Major() && from.Minor()+1 >= to.Minor()
	if !next && (from.Major()+1 != to.Major() || to.Minor() != 0) {
		b.add("csv", "an upgrade from %s to %s skips a minor version", from, to)
	}
}

// shown checks the fields that a catalog shows.
func (b *bundle) shown() {
	s := b.csv.Spec
	for field, text := range map[string]string{
		"displayName": s.DisplayName, "description": s.Description, "maturity": s.Maturity,
		"provider.name": s.Provider.Name, "provider.url": s.Provider.URL,
	} {
		if strings.TrimSpace(text) == "" {
			b.add("csv", "spec.%s is empty", field)
		}
	}
	if !slices.Contains(
		[]string{"planning", "pre-alpha", "alpha", "beta", "stable", "mature", "inactive", "deprecated"}, s.Maturity) {
		b.add("csv", "spec.maturity is %q", s.Maturity)
	}
	if len(s.Keywords) == 0 || len(s.Maintainers) == 0 || len(s.Links) == 0 {
		b.add("csv", "keywords, maintainers and links must each have at least one entry")
	}
	for _, m := range s.Maintainers {
		if _, err := mail.ParseAddress(m.Email); err != nil || m.Name == "" {
			b.add("csv", "the maintainer %q <%s> has no name or no address", m.Name, m.Email)
		}
	}
	for _, l := range append([]olm.Link{s.Provider}, s.Links...) {
		if u, err := url.ParseRequestURI(l.URL); err != nil || u.Scheme != "https" || l.Name == "" {
			b.add("csv", "the link %q to %q has no name, or is no https URL", l.Name, l.URL)
		}
	}
	b.icon()
}

func (b *bundle) icon() {
	icons := b.csv.Spec.Icon
	if len(icons) != 1 || icons[0].MediaType != "image/svg+xml" {
		b.add("icon", "there must be one icon, an SVG")
		return
	}
	picture, err := base64.StdEncoding.DecodeString(icons[0].Data)
	if err != nil {
		b.add("icon", "the icon is not base64: %v", err)
		return
	}
	root := ""
	for d := xml.NewDecoder(strings.NewReader(string(picture))); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			b.add("icon", "the icon is not XML: %v", err)
			return
		}
		if start, ok := token.(xml.StartElement); ok && root == "" {
			root = start.Name.Local
		}
	}
	if root != "svg" {
		b.add("icon", "its root element is %q, not svg", root)
	}
}

// categories returns the categories of OLM's catalogs.
func categories() []string {
	return []string{
		"AI/Machine Learning", "Application Runtime", "Big Data", "Cloud Provider", "Database", "Developer Tools",
		"Integration & Delivery",
		"Logging & Tracing", "Modernization & Migration", "Monitoring", "Networking", "Observability",
		"OpenShift Optional", "Security", "Storage",
		"Streaming & Messaging",
	}
}

// answers checks the annotations and labels by which a catalog filters and a console installs.
func (b *bundle) answers() {
	a := b.csv.Metadata.Annotations
	levels := []string{"Basic Install", "Seamless Upgrades", "Full Lifecycle", "Deep Insights", "Auto Pilot"}
	if !slices.Contains(levels, a[olm.AnnotationCapabilities]) {
		b.add("answers", "%s is %q, not one of %s", olm.AnnotationCapabilities, a[olm.AnnotationCapabilities],
			strings.Join(levels, ", "))
	}
	for _, c := range strings.Split(a[olm.AnnotationCategories], ",") {
		if !slices.Contains(categories(), strings.TrimSpace(c)) {
			b.add("answers", "%s has the unknown category %q", olm.AnnotationCategories, c)
		}
	}
	if n := len(a[olm.AnnotationDescription]); n == 0 || n > 135 {
		b.add("answers", "%s has %d characters; a catalog shows 1 to 135", olm.AnnotationDescription, n)
	}
	if _, err := time.Parse(time.RFC3339, a[olm.AnnotationCreatedAt]); err != nil {
		b.add("answers", "%s: %v", olm.AnnotationCreatedAt, err)
	}
	for _, key := range []string{olm.AnnotationRepository, olm.AnnotationSupport, olm.AnnotationContainerImage} {
		if a[key] == "" {
			b.add("answers", "%s is missing", key)
		}
	}
	b.booleans(a)
	for _, label := range []string{
		"operatorframework.io/os.linux", "operatorframework.io/arch.amd64", "operatorframework.io/arch.arm64",
	} {
		if b.csv.Metadata.Labels[label] != "supported" {
			b.add("answers", "the label %s is not set to supported, but the image is built for it", label)
		}
	}
	b.namespace(a)
}

// booleans checks that the bundle declares all features of OpenShift and no others, and offers
// monitoring if it has a ServiceMonitor.
func (b *bundle) booleans(annotations map[string]string) {
	for _, feature := range olm.Features() {
		if v := annotations[olm.AnnotationFeature+feature]; v != "true" && v != "false" {
			b.add("answers", "%s%s is %q, neither true nor false", olm.AnnotationFeature, feature, v)
		}
	}
	for key := range annotations {
		if feature, ok := strings.CutPrefix(key, olm.AnnotationFeature); ok &&
			!slices.Contains(olm.Features(), feature) {
			b.add("answers", "%s is not a known feature", key)
		}
	}
	monitored := slices.ContainsFunc(b.extra, func(o unstructured.Unstructured) bool {
		return o.GetKind() == "ServiceMonitor"
	})
	if (annotations[olm.AnnotationMonitoring] == "true") != monitored {
		b.add("answers", "%s is %q; the bundle has a ServiceMonitor: %t", olm.AnnotationMonitoring,
			annotations[olm.AnnotationMonitoring], monitored)
	}
}

// namespace checks the Namespace that a console creates before it installs the operator.
func (b *bundle) namespace(annotations map[string]string) {
	if annotations[olm.AnnotationNamespace] != olm.Namespace {
		b.add("answers", "%s is %q, not %q", olm.AnnotationNamespace, annotations[olm.AnnotationNamespace],
			olm.Namespace)
	}
	var o unstructured.Unstructured
	if err := json.Unmarshal([]byte(annotations[olm.AnnotationNamespaceTemplate]), &o.Object); err != nil {
		b.add("answers", "%s: %v", olm.AnnotationNamespaceTemplate, err)
		return
	}
	if o.GetKind() != "Namespace" || o.GetName() != olm.Namespace ||
		o.GetLabels()["pod-security.kubernetes.io/enforce"] != "restricted" {
		b.add("answers", "%s is not the Namespace %s with restricted Pod Security", olm.AnnotationNamespaceTemplate,
			olm.Namespace)
	}
}
