from moe_prompts.claims.claim import Claim

CLAIMS: list[Claim] = []
