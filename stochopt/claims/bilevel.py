"""Methods for bilevel problems."""

SOBA = SABA = MRBO = SUSTAIN = F2SA = AMIGO = STOCBIO = BSA = TTSA = BSVRB_V1 = BSVRB_V2 = ()
