// Package recordmap encodes the verified evidence of a repository as a record of one or more
// ConfigMaps, so that it outlasts restarts and reaches every replica.
//
// A record is read as a whole or not at all: its first ConfigMap, the head, names the digest of all
// the data, and replaces the earlier head in a single write, after the further parts were written.
// The package is pure: it does no I/O, and does not judge the data, which the trust root verifies
// again when the record is restored.
package recordmap

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// What the ConfigMaps of records are labelled and annotated with.
const (
	// LabelKind is on every ConfigMap of a record: KindHead on the first, KindPart on the further
	// ones.
	LabelKind = "countersign.dev/metadata"
	// KindHead marks the first ConfigMap of a record.
	KindHead = "head"
	// KindPart marks the further ones.
	KindPart = "part"
	// LabelTrustRoot holds the UID of the TrustRoot. Its records are listed by it.
	LabelTrustRoot = "countersign.dev/trust-root-uid"

	annotationRoot       = "countersign.dev/trust-root"
	annotationRepository = "countersign.dev/repository"
	annotationPulled     = "countersign.dev/pulled-from"
	annotationShared     = "countersign.dev/shared"
	annotationEpoch      = "countersign.dev/versions-since"
	annotationUsed       = "countersign.dev/last-used"
	annotationDigest     = "countersign.dev/digest"
	annotationParts      = "countersign.dev/parts"

	labelManagedBy = "app.kubernetes.io/managed-by"
	dataKey        = "metadata.gz"
)

const (
	// maxPart bounds the data of one ConfigMap, in bytes. The API server accepts 1 MiB of data, and
	// etcd 1.5 MiB for the whole object.
	maxPart = 900 << 10
	// maxParts bounds the ConfigMaps of one record.
	maxParts = 32

	// The name of a head is namePrefix and the first nameDigest bytes of a digest, in hexadecimal:
	// nameSize bytes.
	namePrefix = "countersign-metadata-"
	nameDigest = 16
	nameSize   = len(namePrefix) + 2*nameDigest
)

// Head is the metadata of a record.
type Head struct {
	// Root and UID identify the TrustRoot. Repository is the repository as it is signed, and Pulled
	// as it is pulled. Shared says that the record is of all repositories of the TrustRoot.
	Root               string
	UID                types.UID
	Repository, Pulled string
	Shared             bool
	// Epoch is the epoch of the versions seen. A record of another epoch is not restored.
	Epoch string
	// Used is the day of the last use of the repository.
	Used time.Time
	// Digest is the digest of the data, in hexadecimal.
	Digest string

	parts int
}

// Name returns the name of the head of a record. It depends on the UID, so that a new TrustRoot
// under an old name shares no records with the old one.
func Name(uid types.UID, repository trust.Subject) string {
	name := string(uid) + " " + repository.Repository
	if repository.Pulled != "" { // release 0.1.0 had no Pulled
		name += " " + repository.Pulled
	}
	if repository.Shared {
		name += " *" // no name of a repository
	}
	sum := sha256.Sum256([]byte(name))
	return namePrefix + hex.EncodeToString(sum[:nameDigest])
}

// Digest returns the digest of the data of a record.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Encode returns the ConfigMaps of a record: its head, and the parts, which must be written before
// it. It ignores the digest of h.
func Encode(namespace string, h Head, data []byte) (head *corev1.ConfigMap, parts []*corev1.ConfigMap, err error) {
	if len(data) == 0 || len(data) > maxPart*maxParts {
		return nil, nil, fmt.Errorf("%s: %d bytes of metadata are not from 1 to the %d that are written down",
			h.subject(), len(data), maxPart*maxParts)
	}
	h.Digest = Digest(data)
	var chunks [][]byte
	for len(data) > maxPart {
		chunks, data = append(chunks, data[:maxPart]), data[maxPart:]
	}
	chunks = append(chunks, data)
	h.parts = len(chunks)
	for i, name := range h.PartNames() {
		parts = append(parts, h.configMap(namespace, name, KindPart, chunks[i+1]))
	}
	return h.configMap(namespace, Name(h.UID, h.subject()), KindHead, chunks[0]), parts, nil
}

// PartNames returns the names of the further parts of a record. They depend on the digest, so that
// no two records share a part.
func (h Head) PartNames() []string {
	var names []string
	for i := 1; i < h.parts; i++ {
		names = append(names, fmt.Sprintf("%s-%.12s-%d", Name(h.UID, h.subject()), h.Digest, i))
	}
	return names
}

// Bound returns the most bytes of data that the record can have.
func (h Head) Bound() int { return h.parts * maxPart }

// Owns reports whether a name belongs to a part of this record, in any version of it.
func (h Head) Owns(part string) bool { return HeadName(part) == Name(h.UID, h.subject()) }

// HeadName returns the name of the head that a part belongs to, by the name of the part. It returns
// an empty name for any other ConfigMap.
func HeadName(part string) string {
	if len(part) <= nameSize || !strings.HasPrefix(part, namePrefix) || part[nameSize] != '-' {
		return ""
	}
	return part[:nameSize]
}

func (h Head) configMap(namespace, name, kind string, chunk []byte) *corev1.ConfigMap {
	m := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      name,
			Labels:    map[string]string{labelManagedBy: "countersign", LabelKind: kind, LabelTrustRoot: string(h.UID)},
			Annotations: map[string]string{
				annotationRoot: h.Root, annotationRepository: h.Repository, annotationEpoch: h.Epoch,
				annotationUsed: h.Used.UTC().Format(time.DateOnly), annotationDigest: h.Digest,
				annotationParts: strconv.Itoa(h.parts),
			},
			// The garbage collector deletes the record with the TrustRoot.
			OwnerReferences: []metav1.OwnerReference{
				{APIVersion: v1alpha1.GroupVersion.String(), Kind: "TrustRoot", Name: h.Root, UID: h.UID},
			},
		},
		BinaryData: map[string][]byte{dataKey: chunk},
	}
	if h.Pulled != "" {
		m.Annotations[annotationPulled] = h.Pulled
	}
	if h.Shared {
		m.Annotations[annotationShared] = strconv.FormatBool(true)
	}
	return m
}

// ReadHead reads the metadata of a record from its head. It needs no data.
func ReadHead(m metav1.Object) (Head, error) {
	if m.GetLabels()[LabelKind] != KindHead {
		return Head{}, errors.New("it is not the head of a record")
	}
	a := m.GetAnnotations()
	h := Head{
		Root: a[annotationRoot], UID: types.UID(m.GetLabels()[LabelTrustRoot]), Repository: a[annotationRepository],
		Pulled: a[annotationPulled], Shared: a[annotationShared] != "",
		Epoch: a[annotationEpoch], Digest: a[annotationDigest],
	}
	if h.Root == "" || h.subject() == (trust.Subject{}) || m.GetName() != Name(h.UID, h.subject()) {
		return Head{}, fmt.Errorf(
			"it says that it is of repository %.80q under TrustRoot %.80q, and has not the name for that", h.subject(),
			h.Root)
	}
	var err error
	if h.parts, err = strconv.Atoi(a[annotationParts]); err != nil || h.parts < 1 || h.parts > maxParts {
		return Head{}, fmt.Errorf("%s: %.80q is no number of parts", annotationParts, a[annotationParts])
	}
	if h.Used, err = time.Parse(time.DateOnly, a[annotationUsed]); err != nil {
		h.Used = m.GetCreationTimestamp().Time // a malformed day does not invalidate the data
	}
	return h, nil
}

// Of returns the repository, under its trust root, that the annotations of a ConfigMap name. The
// ConfigMap may be a head or a part.
func Of(m metav1.Object) (repository trust.Key, ok bool) {
	a := m.GetAnnotations()
	repository = Head{
		Root: a[annotationRoot], Repository: a[annotationRepository], Pulled: a[annotationPulled],
		Shared: a[annotationShared] != "",
	}.Key()
	return repository, m.GetLabels()[LabelKind] != "" && repository.Root != "" &&
		repository.Subject != (trust.Subject{})
}

// Key returns the repository of the record, under its trust root.
func (h Head) Key() trust.Key { return trust.Key{Root: h.Root, Subject: h.subject()} }

func (h Head) subject() trust.Subject {
	return trust.Subject{Repository: h.Repository, Pulled: h.Pulled, Shared: h.Shared}
}

// Join returns the data of a record from its head and parts, in order; a missing part is nil. It
// returns an error where the data is incomplete or does not have the digest.
func (h Head) Join(head *corev1.ConfigMap, parts []*corev1.ConfigMap) ([]byte, error) {
	if len(parts) != h.parts-1 || slices.Contains(parts, nil) {
		return nil, fmt.Errorf("%s: not all of its %d parts are there", h.subject(), h.parts)
	}
	chunks := [][]byte{head.BinaryData[dataKey]}
	for _, p := range parts {
		chunks = append(chunks, p.BinaryData[dataKey])
	}
	data := slices.Concat(chunks...)
	if Digest(data) != h.Digest {
		return nil, fmt.Errorf("%s: the data is damaged: it has not the digest that its head names", h.subject())
	}
	return data, nil
}
