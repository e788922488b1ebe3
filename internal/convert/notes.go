package convert

import (
	"fmt"
)

// noteID names a text that notes have.
type noteID string

// NoteText is a text that notes have, and the effect that it tells of.
type NoteText struct {
	ID     string
	Effect Effect
	Format string
}

// The notes. Each is in docs/convert.md, and in a test.
const (
	noteUnknown           noteID = "unknown"
	noteOutside           noteID = "outside"
	noteRenamed           noteID = "renamed"
	noteAllow             noteID = "allow"
	noteAllowDropped      noteID = "allow-tag"
	noteTag               noteID = "tag"
	noteSubdomains        noteID = "subdomains"
	noteExceptions        noteID = "exceptions"
	noteTooMany           noteID = "too-many"
	noteWarn              noteID = "warn"
	noteAlwaysChecked     noteID = "always-checked"
	noteKind              noteID = "kind"
	noteSigners           noteID = "signers"
	noteAnySigner         noteID = "any-signer"
	noteACR               noteID = "acr"
	notePlainCredentials  noteID = "plain-credentials" //nolint:gosec // the ID of a note
	noteBasicSecret       noteID = "basic-secret"
	notePullSecret        noteID = "pull-secret"
	noteKeychain          noteID = "keychain"
	noteRegistryUnknown   noteID = "registry-unknown"
	noteSCT               noteID = "sct"
	noteKeylessNoLog      noteID = "keyless-no-log"
	noteThreshold         noteID = "threshold"
	noteFillRoot          noteID = "fill-root"
	noteFillKey           noteID = "fill-key"
	noteKeySecret         noteID = "key-secret"
	noteUnanchored        noteID = "unanchored"
	noteAnyIdentity       noteID = "any-identity"
	notePermissive        noteID = "permissive"
	noteAudit             noteID = "audit"
	noteTimestamps        noteID = "timestamps"
	noteManyNamespaces    noteID = "many-namespaces"
	noteNoClusterPolicy   noteID = "no-cluster-policy"
	noteVulnerability     noteID = "vulnerability"
	noteTrustServer       noteID = "trust-server"
	noteRootPin           noteID = "root-pin"
	noteSignerSecret      noteID = "signer-secret"
	noteStoreSecret       noteID = "store-secret"
	noteKeyNamespace      noteID = "key-namespace"
	noteLookaside         noteID = "lookaside"
	noteIncluded          noteID = "included"
	noteMatch             noteID = "match"
	notePolicyLanguage    noteID = "policy-language"
	noteAttestationPolicy noteID = "attestation-policy"
	noteOneSource         noteID = "one-source"
	noteSignaturePull     noteID = "signature-pull"
	noteTagPrefix         noteID = "tag-prefix"
	noteBundleKey         noteID = "bundle-key"
	noteKeyTimestamp      noteID = "key-timestamp"
	noteHash              noteID = "hash"
	noteOverridden        noteID = "overridden"
	notePKI               noteID = "pki"
	noteSignedTag         noteID = "signed-tag"
	noteTransport         noteID = "transport"
	noteDefaultUnused     noteID = "default-unused"
	noteAttachments       noteID = "attachments"
	noteBaseLayer         noteID = "base-layer"
	noteKeyType           noteID = "key-type"
	noteInnerSection      noteID = "inner-section"
)

// Notes lists every text that a note can have. A part in braces stands for a value.
func Notes() []NoteText { //nolint:funlen // it is a table
	texts := []struct {
		id     noteID
		effect Effect
		format string
	}{
		{noteUnknown, Dropped, "this field is not known here: check by hand whether it restricts images"},
		{noteOutside, Outside, "nothing to do: install the operator with settings of its own"},
		{
			noteRenamed, Carried,
			"the name %q is the role %q: roles have lower-case letters, digits, '-' and '_', and differ " +
				"within a policy",
		},
		{
			noteAllow, Carried,
			"these images are admitted unsigned, as before: allowUnsigned. Delete the policy once they are signed",
		},
		{
			noteAllowDropped, Dropped,
			"patterns name no tag or digest, so this exception from more general rules is left out: " +
				"sign these images, or except the whole repository by hand",
		},
		{
			noteTag, Narrowed,
			"patterns name no tag or digest, so the rule holds for the whole repository, and more general " +
				"rules hold for it too",
		},
		{
			noteSubdomains, Narrowed,
			"a host that begins with \"*.\" stands for up to %d labels: add a pattern for deeper hosts",
		},
		{
			noteExceptions, Narrowed,
			"more than %d closer rules except images from this rule: those past the limit must meet both",
		},
		{
			noteTooMany, Dropped,
			"a policy has at most %d TrustRoots and %d requirements and roles in each: these images are " +
				"denied until you split the rule",
		},
		{noteWarn, Carried, "the policies only warn, in mode Warn: set Enforce when nothing warns any more"},
		{
			noteAlwaysChecked, Narrowed,
			"every Pod and every template is checked, whoever created it: nothing to do",
		},
		{noteKind, Dropped, "validators of the type %q are not known: these images are denied"},
		{noteSigners, Narrowed, "any signer was accepted, and now any of those that --signers names: %s"},
		{
			noteAnySigner, Dropped,
			"any signer was accepted, and a role needs named signers: these images are denied until you " +
				"convert again with --signers, or edit role any-signer of TrustRoot %q",
		},
		{noteACR, Carried, "nothing to do: the operator finds the token service by itself"},
		{notePlainCredentials, Dropped, "credentials are never sent over http: use a server with https"},
		{
			noteBasicSecret, Narrowed,
			"create Secret %q of type kubernetes.io/basic-auth with username and password in namespace %s",
		},
		{
			notePullSecret, Narrowed,
			"create Secret %q of type kubernetes.io/dockerconfigjson in namespace %s, with the same content",
		},
		{
			noteKeychain, Dropped,
			"credentials of the node or cloud are not used: name a Secret in spec.registries, or let the " +
				"operator read pull secrets",
		},
		{
			noteRegistryUnknown, Dropped,
			"the rule names no registry that the credentials and the certificate are for: add it to " +
				"spec.registries",
		},
		{
			noteSCT, Narrowed,
			"the timestamp of a certificate (SCT) is verified where the trusted root lists a log for it",
		},
		{
			noteKeylessNoLog, Dropped,
			"an identity needs a transparency log or a signed timestamp: name one, and convert again",
		},
		{
			noteThreshold, Dropped,
			"a threshold counts signers, and there are %d: lower it, and convert again. Until then these " +
				"images are denied",
		},
		{
			noteFillRoot, Narrowed,
			"fill ConfigMap %q with the trusted_root.json of this Sigstore instance: until then the " +
				"images are denied",
		},
		{
			noteFillKey, Narrowed,
			"fill entry %[2]q of ConfigMap %[1]q with %[3]s: until then the images are denied",
		},
		{
			noteKeySecret, Narrowed,
			"copy Secret %q to namespace %s, with the key as entry %q: until then the images are denied",
		},
		{
			noteUnanchored, Carried,
			"this expression matches any part of the text, as before: write ^ and $ around it, and \\. for dots",
		},
		{noteAnyIdentity, Carried, "no %s is named, so any is accepted, as before: name one"},
		{
			notePermissive, Narrowed,
			"revoked certificates count (revocation: Skip), as before. Expired signatures do not",
		},
		{
			noteAudit, Narrowed,
			"signatures by other certificates, and expired ones, do not count. Revoked certificates do, as before",
		},
		{
			noteTimestamps, Dropped,
			"a signature without a timestamp counts here while its certificates are valid, so these images " +
				"are denied: write verifyTimestamp: afterCertExpiry to accept it, and convert again",
		},
		{
			noteManyNamespaces, Narrowed,
			"more than 64 namespaces have policies of their own: the policies of the cluster hold in them too",
		},
		{
			noteNoClusterPolicy, Carried,
			"there is no ClusterImagePolicy, so all other namespaces admit nothing, as before: convert " +
				"it along with these",
		},
		{
			noteVulnerability, Dropped,
			"reports of this scanner are not read: a policy that ends in not-converted denies these images. " +
				"Demand an attestation of a scan instead, and delete it",
		},
		{
			noteTrustServer, Dropped,
			"it is not known which Notary server has the signatures: write trustServer, and convert again. " +
				"Until then these images are denied",
		},
		{
			noteRootPin, Narrowed,
			"roots were trusted on first use. Fill ConfigMap %q, entry %q, with the root key: kubectl " +
				"countersign trust pin REPOSITORY shows it. Until then the images are denied",
		},
		{
			noteSignerSecret, Narrowed,
			"the Secret says who the signer is: convert it along with -f, or copy Secret %q to " +
				"namespace %s and name the delegation in the role",
		},
		{
			noteStoreSecret, Dropped,
			"the signature storage is read without credentials: let it be read without, or images are denied",
		},
		{noteKeyNamespace, Narrowed, "the operator reads Secrets of namespace %s alone: copy it there"},
		{
			noteLookaside, Dropped,
			"signatures are read over https alone, and without a user: serve the storage so. Until then the " +
				"signature extension of the registry is read",
		},
		{
			noteIncluded, Narrowed,
			"the policy holds in every namespace: give it a namespaceSelector, such as " +
				"policy.sigstore.dev/include, if the policy-controller watched only some",
		},
		{noteMatch, Narrowed, "the policy holds for every workload, whatever its kind and labels"},
		{
			notePolicyLanguage, Dropped,
			"policies in CUE and Rego are not converted: a policy that ends in not-converted denies these " +
				"images until you delete it",
		},
		{
			noteAttestationPolicy, Dropped,
			"policies in CUE and Rego are not converted: write it in CEL, as conditions of TrustRoot " +
				"%q, role %q. Until then nothing meets the role",
		},
		{noteOneSource, Dropped, "signatures are read at the first source alone"},
		{
			noteSignaturePull, Dropped,
			"pull secrets of signatures are not read: name a Secret in spec.registries",
		},
		{noteTagPrefix, Dropped, "signatures with a prefix are not read: this authority admits nothing"},
		{
			noteBundleKey, Dropped,
			"bundles by a key are not read by the policy-controller either: this authority admits nothing",
		},
		{
			noteKeyTimestamp, Dropped,
			"that a signature by a key has a timestamp cannot be demanded: this authority admits nothing",
		},
		{
			noteHash, Dropped,
			"signatures over another hash than SHA-256 cannot be demanded: this authority admits nothing",
		},
		{
			noteOverridden, Carried,
			"a ClusterImagePolicy decides about this scope, as before: the scope is left out",
		},
		{
			notePKI, Dropped,
			"signatures of Sigstore with certificates of an own PKI are not read: these images are denied. Sign " +
				"with notation instead, or with a key",
		},
		{
			noteSignedTag, Dropped,
			"%s compares the tag in a signature, which is not compared here: these images are denied. " +
				"Let the rule match the repository alone, as signatures of cosign need it, and convert again",
		},
		{noteTransport, Outside, "images of this transport are not pulled by Kubernetes: nothing to do"},
		{noteDefaultUnused, Outside, "the default of the transport docker replaces it: nothing to do"},
		{
			noteAttachments, Dropped,
			"registries.d does not set use-sigstore-attachments for these images, so nothing met the rule: " +
				"they are denied. Set it, and convert again",
		},
		{noteBaseLayer, Dropped, "signedBaseLayer is met by no image: these are denied, as before"},
		{noteKeyType, Dropped, "keys of this type are met by no image: these are denied, as before"},
		{
			noteInnerSection, Dropped,
			"this section is for a part of the scope %q of policy.json alone: add a scope for it, and " +
				"convert again. Until then its signatures are read elsewhere",
		},
	}
	all := make([]NoteText, 0, len(texts))
	for _, t := range texts {
		all = append(all, NoteText{string(t.id), t.effect, t.format})
	}
	return all
}

// note adds a note about a value.
func (c *converter) note(at value, id noteID, args ...any) {
	for _, t := range Notes() {
		if t.ID != string(id) {
			continue
		}
		line := 0
		if at.node != nil {
			line = at.node.Line
		}
		field := at.path
		if field == "" {
			field = "the document"
		}
		c.notes = append(c.notes, Note{
			File: at.file, Line: line, Field: short(printable(field)), Effect: t.Effect,
			Text: printable(fmt.Sprintf(t.Format, args...)), id: id,
		})
	}
}
