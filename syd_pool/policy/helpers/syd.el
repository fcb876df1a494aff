;;; syd.el --- speak to the sandbox from Emacs  -*- lexical-binding: t -*-

;; A command is given by asking for the attributes of a file that is named after it.  Emacs must be the command
;; that the sandbox was started with (lock:exec), or everybody may speak (lock:off, lock:drop).

;;; Code:

(defconst syd-root "/dev/syd"
  "Below this file name the sandbox listens.")

(defconst syd-separator (string 31)
  "Between the words of a command line for `syd-exec'.")

(defun syd-say (command)
  "Give COMMAND, a string as after the option -m; non-nil if it was done."
  (let ((file-name-handler-alist nil))
    (and (file-attributes (concat syd-root "/" command)) t)))

(defun syd-check ()
  "Non-nil if there is a sandbox that listens to this Emacs."
  (let ((file-name-handler-alist nil))
    (and (file-attributes syd-root) t)))

(defun syd-state ()
  "The rules as a JSON string; an error where they may not be seen."
  (with-temp-buffer
    (insert-file-contents-literally syd-root)
    (buffer-string)))

(defun syd-enabled-p (categories)
  "Non-nil if all CATEGORIES, a string with commas, are on."
  (syd-say (concat "sandbox/" categories "?")))

(defun syd-enable (categories)
  "Switch CATEGORIES on."
  (syd-say (concat "sandbox/" categories ":on")))

(defun syd-disable (categories)
  "Switch CATEGORIES off."
  (syd-say (concat "sandbox/" categories ":off")))

(defun syd-rule-add (action categories pattern)
  "Add the rule ACTION (\"allow\", \"deny\", ...) for CATEGORIES and PATTERN."
  (syd-say (concat action "/" categories "+" pattern)))

(defun syd-rule-remove (action categories pattern)
  "Take the last such rule of ACTION, CATEGORIES and PATTERN away."
  (syd-say (concat action "/" categories "-" pattern)))

(defun syd-rule-clear (action categories pattern)
  "Take every such rule of ACTION, CATEGORIES and PATTERN away."
  (syd-say (concat action "/" categories "^" pattern)))

(defun syd-default (action categories)
  "Let ACTION happen where no rule matches in CATEGORIES."
  (syd-say (concat "default/" categories ":" action)))

(defun syd-set (option value)
  "Set OPTION (\"trace/force_umask\") to VALUE, a string."
  (syd-say (concat option ":" value)))

(defun syd-lock (&optional state)
  "Close the lock: STATE is on (the default), off, exec, ipc, drop or read."
  (syd-say (concat "lock:" (or state "on"))))

(defun syd-load (profile)
  "Carry out the built-in PROFILE."
  (syd-say (concat "load/" profile)))

(defun syd-exec (program &rest arguments)
  "Run PROGRAM with ARGUMENTS outside the sandbox."
  (syd-say (concat "cmd/exec!" (mapconcat #'identity (cons program arguments) syd-separator))))

(defun syd-reset ()
  "Back to the default rules; the lock stays."
  (syd-say "reset"))

(defun syd-panic ()
  "End the run at once."
  (syd-say "panic"))

(defun syd-ghost ()
  "Let the sandbox go: nothing that is judged works any more."
  (syd-say "ghost"))

(provide 'syd)
;;; syd.el ends here
